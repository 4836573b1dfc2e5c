//! The effective configuration: what it shows, and that it is the same when it is read again.

use std::net::IpAddr;
use std::path::PathBuf;

use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;
use crate::addr::{Listen, ListenAddr};
use crate::config::{
    Affinity, CareConfig, Confinement, DispatchBy, FirstRequest, HealthCheck, InstanceName, Limits, Log, LogFormat,
    NodeOptions, NodeStyle, OverLimit, PeekTimeoutAction, Proxies, Redis, RoomsOptions, Serialization, Sessions,
    SharedRooms, TagSecret, Transport, Unattributed,
};
use crate::flags::testing::{Folder, config, refused, told, without_sources};
use crate::peek::ClientHeader;
use crate::pool::{GiveUp, RestartLimit};
use crate::route::Prefix;
use crate::route::TagKey;

fn listen() -> impl Strategy<Value = Vec<ListenAddr>> {
    // Each port once, so that none overlap.
    let addr = |port: u16| {
        prop_oneof![
            Just(ListenAddr::DualStack(port)),
            any::<IpAddr>().prop_map(move |ip| ListenAddr::Ip((ip.to_canonical(), port).into())),
            Just(ListenAddr::Unix(PathBuf::from(format!("/run/a socket: {port}")))),
        ]
    };
    subsequence((1..9).collect::<Vec<u16>>(), 1..9)
        .prop_flat_map(move |ports| ports.into_iter().map(addr).collect::<Vec<_>>())
}

fn span(least: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![
        (least..31_536_000).prop_map(Duration::from_secs),
        (least..31_536_000_000_000_000).prop_map(Duration::from_nanos)
    ]
}

fn engine(dir: String) -> impl Strategy<Value = Program> {
    let millis = || (1u64..=864_000_000).prop_map(Duration::from_millis);
    let folder = move || option::of(Just(PathBuf::from(&dir)));
    let path = "(/[a-z0-9._~!$&'()*+,;=:@%-]{3,9}){1,3}/";
    let origins =
        prop_oneof![Just(vec!["*".to_owned()]), prop::collection::vec("https?://[a-z]{1,9}(:[1-9]{1,4})?", 0..3)];
    let transports = subsequence(vec![Transport::Polling, Transport::Websocket], 1..=2);
    let confine = prop_oneof![Just(Confinement::Auto), Just(Confinement::Off)];
    let times = (millis(), millis(), millis());
    (path, any::<bool>(), transports, times, 1u64..=1 << 30, origins, (folder(), folder()), confine).prop_map(
        |(path, serve_client, transports, times, max_payload, cors_origin, (static_dir, client_dist), confine)| {
            let (ping_interval, ping_timeout, upgrade_timeout) = times;
            Program::BuiltIn(EngineConfig {
                path,
                serve_client,
                transports,
                ping_interval,
                ping_timeout,
                upgrade_timeout,
                max_payload,
                cors_origin,
                static_dir,
                client_dist,
                confine,
            })
        },
    )
}

fn node_options() -> impl Strategy<Value = NodeOptions> {
    let named = "auto|cluster|classic|sticky-session|sticky-cluster|sticky-listen|socket\\.io-sticky";
    let json = prop_oneof![
        ".{0,9}".prop_map(|text| serde_json::Value::from(text).to_string()),
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?|true|false|null",
        Just(r#"{"type":"a b","data":["'",": ",{}]}"#.to_owned()),
    ];
    let style = prop_oneof![named, json].prop_map(|text| text.parse::<NodeStyle>().expect("a style"));
    let serialization = prop_oneof![Just(Serialization::Json), Just(Serialization::Advanced)];
    let switches = (any::<bool>(), any::<bool>(), any::<bool>());
    (style, serialization, switches).prop_map(|(style, serialization, (wait_ready, relay_messages, preload))| {
        NodeOptions { style, serialization, wait_ready, relay_messages, preload }
    })
}

fn rooms() -> impl Strategy<Value = RoomsOptions> {
    let emitter = option::of(Just("socket.io".to_owned()));
    let redis = option::of((any::<bool>(), emitter).prop_map(|(required, emitter)| Redis {
        url: "redis://127.0.0.1:6379/1".to_owned(),
        prefix: "a b".to_owned(),
        required,
        emitter,
    }));
    let shared = prop_oneof![Just(SharedRooms::Auto), Just(SharedRooms::Off)];
    (shared, redis).prop_map(|(shared, redis)| RoomsOptions { shared, redis })
}

fn command() -> impl Strategy<Value = Program> {
    let args = prop::collection::vec(prop_oneof![".{0,9}", "[0-9.~]{0,4}", Just("null".to_owned())], 0..4);
    let dialect = prop_oneof![
        (Just(DialectChoice::Haft), Just(NodeOptions::default())),
        (prop_oneof![Just(DialectChoice::Auto), Just(DialectChoice::Node)], node_options()),
        (
            Just(DialectChoice::ListenFds),
            any::<bool>().prop_map(|wait_ready| NodeOptions { wait_ready, ..NodeOptions::default() })
        ),
    ];
    (".{1,9}", args, dialect).prop_map(|(name, args, (dialect, node))| {
        Program::Command(CommandLine { argv: [vec![name], args].concat(), dialect, node })
    })
}

/// What runs, and where clients connect, which only what may be a Node program can be left to say.
fn program(dir: String) -> impl Strategy<Value = (Program, Option<Vec<ListenAddr>>)> {
    (prop_oneof![command(), engine(dir)], listen(), any::<bool>()).prop_map(|(program, listen, provenance)| {
        let may_ask = matches!(&program, Program::Command(command) if command.dialect.may_be_node());
        (program, (provenance || !may_ask).then_some(listen))
    })
}

/// What is learnt of a client beyond its address. What does not go together is made fit by the caller.
fn routing(dir: String) -> impl Strategy<Value = (Sessions, Proxies, FirstRequest)> {
    let path = || "(/[a-z0-9._~-]{3,9}){1,3}/";
    // One in a file: another is not given back.
    let secret = option::of(Just(TagSecret { key: TagKey::of_text("secret"), said: vec![format!("@{dir}/token")] }));
    let sessions = (prop::collection::vec(path(), 1..3), prop::collection::vec(path(), 0..3), secret).prop_map(
        |(paths, sticky_paths, tag_key)| Sessions { paths, sticky_paths, tag_key, host_id: "b7".parse().ok() },
    );
    let header = option::of(prop_oneof![Just("x-forwarded-for"), Just("forwarded"), Just("x-real-ip"), Just("x-me")]);
    let trusted = subsequence(vec!["10.0.0.0/8", "::1", "unix", "2001:db8::/32"], 1..=4);
    let proxies = (any::<bool>(), header, trusted).prop_map(|(protocol, header, trusted)| {
        let header = header.map(|name| name.parse::<ClientHeader>().expect("a name"));
        let told = protocol || header.is_some();
        let trusted = trusted.into_iter().filter(|_| told).map(|text| text.parse().expect("a network"));
        let unattributed = if protocol { Unattributed::Close } else { Unattributed::Serve };
        Proxies { protocol, header, trusted: trusted.collect(), unattributed }
    });
    let action = prop_oneof![Just(PeekTimeoutAction::HandOver), Just(PeekTimeoutAction::Close)];
    let first = (span(1), action, 1usize..=1_000_000).prop_map(|(timeout, timeout_action, most)| FirstRequest {
        timeout,
        timeout_action,
        most,
    });
    (sessions, proxies, first)
}

fn affinity() -> impl Strategy<Value = Affinity> {
    let text = prop_oneof![
        "ip|none|session",
        "(session,)?(query:[a-z ]{1,9},)?cookie:[a-z.]{1,9}(,header:[a-z-]{1,9})?(,path:[1-9])?(,ip|,none)?",
    ];
    text.prop_map(|text| text.parse().expect("an affinity"))
}

fn limits() -> impl Strategy<Value = Limits> {
    let rate = || option::of("[1-9][0-9]{0,4}/[sm](:[1-9][0-9]{0,4})?".prop_map(|text| text.parse().expect("a rate")));
    let networks = || subsequence(vec!["10.0.0.0/8", "::1", "unix", "2001:db8::/32"], 0..=4);
    let over = prop_oneof![Just(OverLimit::Wait), Just(OverLimit::Refuse)];
    (rate(), option::of(1_usize..=1_000_000), rate(), over, networks(), networks()).prop_map(
        |(rate_per_client, waiting_per_client, rate, over, allow, deny)| {
            let limits = Limits {
                rate_per_client,
                waiting_per_client,
                rate,
                over,
                allow: allow.into_iter().map(|text| text.parse().expect("a network")).collect(),
                deny: deny.into_iter().map(|text| text.parse().expect("a network")).collect(),
            };
            // Where none is there, nothing is said about what is over it.
            if limits.has_some() { limits } else { Limits { over: OverLimit::default(), ..limits } }
        },
    )
}

fn care() -> impl Strategy<Value = CareConfig> {
    let size = option::of("[1-9][0-9]{0,3}[KMGT]".prop_map(|text| text.parse().expect("a size")));
    let then = prop_oneof![Just(GiveUp::Exit), Just(GiveUp::Out)];
    let limit = (1_usize..=1000, span(1), then).prop_map(|(most, within, then)| RestartLimit { most, within, then });
    let check = ("/[a-z]{0,9}", (1_u64..9999).prop_map(Duration::from_secs), span(1))
        .prop_map(|(path, interval, timeout)| HealthCheck { path: path.parse().expect("a path"), interval, timeout });
    (size, option::of(span(1)), option::of(limit), option::of(check))
        .prop_map(|(max_memory, max_age, restarts, health)| CareConfig { max_memory, max_age, restarts, health })
}

fn admin(dir: &str) -> impl Strategy<Value = (Admin, Option<PathBuf>)> + use<> {
    let token = option::of(Just(PathBuf::from(format!("{dir}/token"))));
    let tcp = token.prop_map(|token| (Admin::At(ListenAddr::Ip(([127, 0, 0, 1], 9).into())), token));
    prop_oneof![
        tcp,
        Just((Admin::Default, None)),
        Just((Admin::Off, None)),
        Just((Admin::At(ListenAddr::Unix("/run/y".into())), None)),
        Just((Admin::At(ListenAddr::DualStack(9)), None))
    ]
}

fn log() -> impl Strategy<Value = Log> {
    let format = prop_oneof![Just(LogFormat::Text), Just(LogFormat::Json)];
    let level = prop_oneof![Just("off"), Just("TRACE"), Just("info,haft::master=debug")];
    let file = option::of(Just(PathBuf::from("/run/haft.log")));
    (format, level, file).prop_map(|(format, level, file)| Log { format, level: level.to_owned(), file })
}

fn configs(dir: String) -> impl Strategy<Value = Config> {
    let prefix = (0u8..=32, 0u8..=128).prop_map(|(ipv4, ipv6)| Prefix { ipv4, ipv6 });
    let numbers = (1usize..=1024, 1u32..=i32::MAX as u32, 1usize..=65536, option::of(any::<bool>()));
    let hanging = option::of((span(1), any::<bool>()));
    let signal = "auto|none|HUP|INT|QUIT|USR1|USR2|TERM|WINCH".prop_map(|text| text.parse().expect("a signal"));
    let times = (span(0), span(1), (span(0), signal), span(0), hanging);
    let admin = admin(&dir);
    let routing = (affinity(), prefix, routing(dir.clone()));
    let dispatch =
        prop_oneof![(Just(DispatchBy::Handover), limits()), (Just(DispatchBy::Kernel), Just(Limits::default()))];
    let program = (program(dir), rooms());
    let configs = (numbers, routing, times, admin, log(), program, dispatch, care()).prop_map(
        |(numbers, routing, times, admin, log, ((program, listen), rooms), (dispatch, limits), care)| {
            let (affinity, prefix, (mut sessions, proxies, first)) = routing;
            match &program {
                Program::BuiltIn(engine) => sessions.paths = vec![engine.path.clone()],
                Program::Command(_) if affinity.has_sessions() => {}
                Program::Command(_) => sessions.paths = Sessions::default().paths,
            }
            sessions.tag_key.take_if(|_| !affinity.reads_requests());
            sessions.host_id.take_if(|_| !affinity.has_sessions() || sessions.tag_key.is_none());
            if affinity.is_nothing() {
                sessions.sticky_paths.clear();
            }
            let (workers, backlog, max_in_flight, prefix_output) = numbers;
            let (hold_timeout, start_timeout, (drain_timeout, drain_signal), busy_poll, hanging) = times;
            let (admin, admin_token_file) = admin;
            Config {
                default_listen: ListenAddr::default(),
                listen: listen.map(|all| all.into_iter().map(Listen::from).collect()),
                workers,
                worker_nofile: None,
                user: (workers % 2 == 0).then(|| "app:www-data".parse().expect("a user")),
                worker_env: (workers % 3 == 0).then(|| PathBuf::from("/etc/haft/env")),
                prefix_output,
                affinity,
                prefix,
                sessions,
                proxies,
                first,
                limits,
                dispatch,
                backlog,
                max_in_flight,
                busy_poll,
                hold_timeout,
                start_timeout,
                drain_timeout,
                drain_signal,
                hang_timeout: hanging.map(|(time, _)| time),
                hang_kill: hanging.is_some_and(|(_, kill)| kill),
                care,
                rooms: if program.has_link() { rooms } else { RoomsOptions::default() },
                name: (workers % 2 == 0).then(|| InstanceName::of("api")),
                admin,
                admin_token_file,
                log,
                program,
            }
        },
    );
    configs.prop_filter("what cannot be had together", |config| config.contradiction().is_none())
}

#[test]
fn a_secret_is_not_shown_and_its_stand_in_is_refused() {
    let folder = Folder::new();
    let args = ["--check", "--affinity=session", "--tag-key=a secret of some length"];
    let yaml = told(&args);
    assert!(yaml.contains("tag-key: # --tag-key\n- (not shown)\n") && !yaml.contains("a secret"), "{yaml}");
    assert!(refused(&["-c", &folder.yaml(&yaml)]).contains("or @FILE"));
}

#[test]
fn the_effective_configuration_given_back_is_the_same() {
    let folder = Folder::new();
    proptest!(ProptestConfig::with_cases(64), |(written in configs(folder.path().to_owned()))| {
        let yaml = written.to_yaml().expect("YAML");
        let file = folder.yaml(&yaml);
        prop_assert_eq!(&config(&["-c", &file]), &written, "{}", yaml);
        prop_assert_eq!(without_sources(&told(&["--check", "-c", &file])), yaml);
    });
}

//! The effective configuration as YAML, in the keys that the file has.

use std::path::Path;
use std::time::Duration;

use crate::config::{Admin, CommandLine, Config, DialectChoice, Engine, Program};
use crate::flags::file::{self, YamlError, YamlValue};
use crate::flags::provenance::Provenance;

/// Stands for a secret, and is too short to be one.
const NOT_SHOWN: &str = "(not shown)";

impl Config {
    /// This configuration as YAML. Given back with `--config` it makes the same configuration, but for a secret that was
    /// given as such: it is not shown, and what stands there instead is refused.
    ///
    /// What is off (no admin listener, no folder) has no line, nor has what is left to a Node program (its listeners).
    ///
    /// # Errors
    ///
    /// When the YAML library refuses, which it has no reason to for texts and numbers.
    pub fn to_yaml(&self) -> Result<String, YamlError> {
        let shown = |text: String| if text.starts_with('@') { text } else { NOT_SHOWN.to_owned() };
        let shown = |(key, node)| match node {
            // It may hold a password.
            YamlValue::One(url) if key == "redis" && url.contains('@') => (key, one(NOT_SHOWN)),
            YamlValue::Many(texts) if key == "tag-key" => {
                (key, YamlValue::Many(texts.into_iter().map(shown).collect()))
            }
            _ => (key, node),
        };
        file::write(self.entries().into_iter().map(shown))
    }

    /// The keys whose values differ from those of another configuration.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let (ours, theirs) = (self.entries(), other.entries());
        let value =
            |entries: &[(&str, YamlValue)], key: &str| entries.iter().find(|(it, _)| *it == key).map(|it| it.1.clone());
        let mut keys: Vec<&str> = ours.iter().chain(&theirs).map(|(key, _)| *key).collect();
        keys.retain(|key| value(&ours, key) != value(&theirs, key));
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn entries(&self) -> Vec<(&'static str, YamlValue)> {
        let mut entries = vec![
            ("listen", self.listen.as_deref().map_or(YamlValue::Nothing, many)),
            ("backlog", one(self.backlog)),
            ("workers", one(self.workers)),
            ("worker-nofile", self.worker_nofile.map_or(YamlValue::Nothing, one)),
            ("user", self.user.as_ref().map_or(YamlValue::Nothing, one)),
            ("worker-env", path(self.worker_env.as_deref())),
            ("prefix-output", self.prefix_output.map_or(YamlValue::Nothing, one)),
            ("affinity", one(&self.affinity)),
            ("ipv4-prefix", one(self.prefix.ipv4)),
            ("ipv6-prefix", one(self.prefix.ipv6)),
            ("sticky-path", many(&self.sessions.sticky_paths)),
            ("proxy-protocol", one(self.proxies.protocol)),
            ("client-ip-header", self.proxies.header.as_ref().map_or(YamlValue::Nothing, one)),
            ("trusted-proxy", many(&self.proxies.trusted.iter().collect::<Vec<_>>())),
            ("unattributed", one(self.proxies.unattributed)),
            ("peek-timeout", span(self.first.timeout)),
            ("peek-timeout-action", one(self.first.timeout_action)),
            ("max-peeking", one(self.first.most)),
            ("max-rate-per-client", self.limits.rate_per_client.map_or(YamlValue::Nothing, one)),
            ("max-waiting-per-client", self.limits.waiting_per_client.map_or(YamlValue::Nothing, one)),
            ("max-rate", self.limits.rate.map_or(YamlValue::Nothing, one)),
            ("over-limit", one(self.limits.over)),
            ("allow", many(&self.limits.allow.iter().collect::<Vec<_>>())),
            ("deny", many(&self.limits.deny.iter().collect::<Vec<_>>())),
            ("dispatch", one(self.dispatch)),
            ("max-in-flight", one(self.max_in_flight)),
            ("busy-poll", span(self.busy_poll)),
            ("hold-timeout", span(self.hold_timeout)),
            ("start-timeout", span(self.start_timeout)),
            ("drain-timeout", span(self.drain_timeout)),
            ("drain-signal", one(self.drain_signal)),
            ("hang-timeout", span(self.hang_timeout.unwrap_or_default())),
            ("hang-kill", one(self.hang_kill)),
            ("name", self.name.as_ref().map_or(YamlValue::Nothing, one)),
            ("admin", if self.admin == Admin::Default { YamlValue::Nothing } else { one(&self.admin) }),
            ("admin-token-file", path(self.admin_token_file.as_deref())),
            ("log-format", one(self.log.format)),
            ("log-level", one(&self.log.level)),
            ("log-file", path(self.log.file.as_deref())),
        ];
        let sessions = &self.sessions;
        if self.affinity.reads_requests() {
            entries
                .push(("tag-key", sessions.tag_key.as_ref().map_or(YamlValue::Nothing, |secret| many(&secret.said))));
        }
        if self.affinity.has_sessions() {
            entries.push(("host-id", sessions.host_id.map_or(YamlValue::Nothing, one)));
        }
        if self.affinity.has_sessions() && matches!(self.program, Program::Command(_)) {
            entries.push(("path", many(&sessions.paths)));
        }
        match &self.program {
            Program::Command(command) => entries.extend(command_entries(command)),
            Program::BuiltIn(engine) => entries.extend(engine_entries(engine)),
        }
        entries
    }
}

/// The configuration as YAML, with where each value comes from as a comment behind its key.
pub(super) fn with_sources(yaml: &str, provenance: &Provenance) -> String {
    let is_key =
        |key: &&str| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let source = |line: &str| {
        // A list's item begins with a dash, and what is in a longer text with a space.
        let key = line.split_once(':').map(|(key, _)| key).filter(|key| !key.starts_with('-')).filter(is_key)?;
        Some(provenance.source(key))
    };
    let lines = yaml.lines().map(|line| match source(line) {
        Some(source) => format!("{line} # {source}\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

fn command_entries(command: &CommandLine) -> Vec<(&'static str, YamlValue)> {
    let mut entries = vec![("command", YamlValue::Many(command.argv.clone())), ("dialect", one(command.dialect))];
    if command.dialect.may_be_node() {
        let node = &command.node;
        entries.extend([("node-style", one(&node.style)), ("node-serialization", one(node.serialization))]);
    }
    if command.dialect != DialectChoice::Haft {
        entries.push(("wait-ready", one(command.node.wait_ready)));
    }
    if command.dialect.may_be_node() {
        let node = &command.node;
        entries.extend([
            ("relay-messages", one(node.relay_messages)),
            ("no-preload", one(!node.preload)),
            ("rooms", one(node.rooms)),
        ]);
        if let Some(redis) = &node.redis {
            entries.extend([
                ("redis", one(&redis.url)),
                ("redis-prefix", one(&redis.prefix)),
                ("redis-required", one(redis.required)),
            ]);
        }
    }
    entries
}

fn engine_entries(engine: &Engine) -> [(&'static str, YamlValue); 10] {
    [
        ("path", one(&engine.path)),
        ("no-serve-client", one(!engine.serve_client)),
        ("transports", many(&engine.transports)),
        ("ping-interval", millis(engine.ping_interval)),
        ("ping-timeout", millis(engine.ping_timeout)),
        ("upgrade-timeout", millis(engine.upgrade_timeout)),
        ("max-payload", one(engine.max_payload)),
        ("cors-origin", many(&engine.cors_origin)),
        ("static", path(engine.static_dir.as_deref())),
        ("client-dist", path(engine.client_dist.as_deref())),
    ]
}

fn one(value: impl ToString) -> YamlValue {
    YamlValue::One(value.to_string())
}

/// A list; an empty one is as if the key were not there.
fn many<T: ToString>(values: &[T]) -> YamlValue {
    if values.is_empty() { YamlValue::Nothing } else { YamlValue::Many(values.iter().map(T::to_string).collect()) }
}

fn span(time: Duration) -> YamlValue {
    one(humantime::format_duration(time))
}

fn millis(time: Duration) -> YamlValue {
    one(time.as_millis())
}

fn path(path: Option<&Path>) -> YamlValue {
    path.map_or(YamlValue::Nothing, |path| one(path.display()))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::path::PathBuf;

    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::*;
    use crate::addr::{Listen, ListenAddr};
    use crate::config::Redis;
    use crate::config::{
        Affinity, DispatchBy, FirstRequest, Limits, Log, LogFormat, Name, NodeOptions, NodeStyle, OverLimit,
        PeekTimeoutAction, Proxies, Serialization, Sessions, SharedRooms, TagSecret, Transport, Unattributed,
    };
    use crate::flags::testing::{Folder, config, refused, told, without_sources};
    use crate::peek::ClientHeader;
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
        let times = (millis(), millis(), millis());
        (path, any::<bool>(), transports, times, 1u64..=1 << 30, origins, folder(), folder()).prop_map(
            |(path, serve_client, transports, times, max_payload, cors_origin, static_dir, client_dist)| {
                let (ping_interval, ping_timeout, upgrade_timeout) = times;
                Program::BuiltIn(Engine {
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
        let redis = option::of(any::<bool>().prop_map(|required| Redis {
            url: "redis://127.0.0.1:6379/1".to_owned(),
            prefix: "a b".to_owned(),
            required,
        }));
        let rooms = prop_oneof![Just(SharedRooms::Auto), Just(SharedRooms::Off)];
        let switches = (any::<bool>(), any::<bool>(), any::<bool>(), rooms, redis);
        (style, serialization, switches).prop_map(
            |(style, serialization, (wait_ready, relay_messages, preload, rooms, redis))| NodeOptions {
                style,
                serialization,
                wait_ready,
                relay_messages,
                preload,
                rooms,
                redis,
            },
        )
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
        let secret =
            option::of(Just(TagSecret { key: TagKey::of_text("secret"), said: vec![format!("@{dir}/token")] }));
        let sessions = (prop::collection::vec(path(), 1..3), prop::collection::vec(path(), 0..3), secret).prop_map(
            |(paths, sticky_paths, tag_key)| Sessions { paths, sticky_paths, tag_key, host_id: "b7".parse().ok() },
        );
        let header =
            option::of(prop_oneof![Just("x-forwarded-for"), Just("forwarded"), Just("x-real-ip"), Just("x-me")]);
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
        let rate =
            || option::of("[1-9][0-9]{0,4}/[sm](:[1-9][0-9]{0,4})?".prop_map(|text| text.parse().expect("a rate")));
        let networks = || subsequence(vec!["10.0.0.0/8", "::1", "unix", "2001:db8::/32"], 0..=4);
        let over = prop_oneof![Just(OverLimit::Wait), Just(OverLimit::Refuse)];
        (rate(), option::of(1_usize..=1_000_000), rate(), over, networks(), networks()).prop_map(
            |(rate_per_client, waiting_per_client, rate, over, allow, deny)| Limits {
                rate_per_client,
                waiting_per_client,
                rate,
                over,
                allow: allow.into_iter().map(|text| text.parse().expect("a network")).collect(),
                deny: deny.into_iter().map(|text| text.parse().expect("a network")).collect(),
            },
        )
    }

    fn configs(dir: String) -> impl Strategy<Value = Config> {
        let format = prop_oneof![Just(LogFormat::Text), Just(LogFormat::Json)];
        let level = prop_oneof![Just("off"), Just("TRACE"), Just("info,haft::master=debug")];
        let file = option::of(Just(PathBuf::from("/run/haft.log")));
        let log = (format, level, file).prop_map(|(format, level, file)| Log { format, level: level.to_owned(), file });
        let prefix = (0u8..=32, 0u8..=128).prop_map(|(ipv4, ipv6)| Prefix { ipv4, ipv6 });
        let numbers = (1usize..=1024, 1u32..=i32::MAX as u32, 1usize..=65536, option::of(any::<bool>()));
        let hanging = option::of((span(1), any::<bool>()));
        let signal = "auto|none|HUP|INT|QUIT|USR1|USR2|TERM|WINCH".prop_map(|text| text.parse().expect("a signal"));
        let times = (span(0), span(1), (span(0), signal), span(0), hanging);
        let token = option::of(Just(PathBuf::from(format!("{dir}/token"))));
        let tcp = token.prop_map(|token| (Admin::At(ListenAddr::Ip(([127, 0, 0, 1], 9).into())), token));
        let admin = prop_oneof![
            tcp,
            Just((Admin::Default, None)),
            Just((Admin::Off, None)),
            Just((Admin::At(ListenAddr::Unix("/run/y".into())), None)),
            Just((Admin::At(ListenAddr::DualStack(9)), None))
        ];
        let routing = (affinity(), prefix, routing(dir.clone()));
        let dispatch =
            prop_oneof![(Just(DispatchBy::Handover), limits()), (Just(DispatchBy::Kernel), Just(Limits::default()))];
        let configs = (numbers, routing, times, admin, log, program(dir), dispatch).prop_map(
            |(numbers, routing, times, admin, log, (program, listen), (dispatch, limits))| {
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
                    name: (workers % 2 == 0).then(|| Name::of("api")),
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
}

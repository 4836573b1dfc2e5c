//! What holds for all flags together.

use std::collections::BTreeSet;

use crate::config::{Config, Program};
use crate::flags::environment::variable;
use crate::flags::file::key;
use crate::flags::testing::{Folder, config, config_in, refused, told, without_sources};
use crate::flags::{ParseOutcome, command, parse_from};

/// What is no key of the file.
const ONLY_TYPED: [&str; 4] = ["check", "config", "help", "version"];

/// Two values for each flag; `DIR` is a [`Folder`].
const SAMPLES: &[(&str, &str, &str)] = &[
    ("listen", "8080", "unix:/run/x"),
    ("backlog", "1", "2"),
    ("workers", "3", "4"),
    ("worker-nofile", "64", "65536"),
    ("user", "app", "app:www-data"),
    ("worker-env", "/etc/haft/a", "/etc/haft/b"),
    ("prefix-output", "true", "false"),
    ("affinity", "none", "session"),
    ("sticky-path", "/a/", "/b/"),
    ("tag-key", "a secret of some length", "another secret of some length"),
    ("host-id", "A", "b7"),
    ("proxy-protocol", "true", "false"),
    ("client-ip-header", "forwarded", "x-real-ip"),
    ("trusted-proxy", "10.0.0.0/8", "::1"),
    ("peek-timeout", "1s", "2s"),
    ("peek-timeout-action", "close", "hand-over"),
    ("unattributed", "close", "serve"),
    ("max-peeking", "1", "2"),
    ("max-rate-per-client", "1/s", "10/m:5"),
    ("max-waiting-per-client", "1", "2"),
    ("max-rate", "1/s", "10/m:5"),
    ("over-limit", "refuse", "wait"),
    ("allow", "10.0.0.0/8", "::1"),
    ("deny", "10.0.0.0/8", "::1"),
    ("ipv4-prefix", "24", "16"),
    ("ipv6-prefix", "128", "48"),
    ("dispatch", "kernel", "handover"),
    ("max-in-flight", "1", "2"),
    ("busy-poll", "1ms", "0"),
    ("hold-timeout", "1s", "2s"),
    ("start-timeout", "1s", "2s"),
    ("drain-timeout", "1s", "2s"),
    ("drain-signal", "TERM", "none"),
    ("hang-timeout", "1s", "0"),
    ("hang-kill", "true", "false"),
    ("max-memory", "512M", "2G"),
    ("max-age", "1h", "1day"),
    ("max-restarts", "5/1m", "20/1h"),
    ("give-up", "exit", "out"),
    ("health-check", "/healthz", "/"),
    ("health-interval", "1s", "2s"),
    ("health-timeout", "1s", "2s"),
    ("dialect", "haft", "node"),
    ("node-style", "'\"my:connection\"'", "sticky-session"),
    ("node-serialization", "advanced", "json"),
    ("wait-ready", "true", "false"),
    ("relay-messages", "true", "false"),
    ("no-preload", "true", "false"),
    ("rooms", "off", "auto"),
    ("redis", "redis://127.0.0.1", "rediss://127.0.0.1:6380"),
    ("redis-prefix", "a", "b"),
    ("redis-required", "true", "false"),
    ("redis-emitter", "chat", "off"),
    ("path", "/a/", "/b/"),
    ("no-serve-client", "true", "false"),
    ("transports", "polling", "websocket"),
    ("ping-interval", "1", "2s"),
    ("ping-timeout", "1", "2s"),
    ("upgrade-timeout", "1", "2s"),
    ("max-payload", "1", "2"),
    ("cors-origin", "'*'", "https://example.org"),
    ("static", "/", "/tmp"),
    ("client-dist", "DIR", "DIR/other"),
    ("confine", "off", "auto"),
    ("name", "api", "chat"),
    ("admin", "9090", "unix:/run/y"),
    ("admin-token-file", "DIR/token", "DIR/other/token"),
    ("log-format", "json", "text"),
    ("log-file", "/run/haft.log", "/run/other.log"),
];

fn keys() -> BTreeSet<String> {
    command().get_arguments().map(key).filter(|key| !ONLY_TYPED.contains(&key.as_str())).collect()
}

/// The flags that a flag does not go without.
fn company(key: &str) -> &'static [&'static str] {
    match key {
        "admin-token-file" => &["--admin=9090"],
        "redis-prefix" | "redis-required" | "redis-emitter" => &["--redis=redis://127.0.0.1"],
        "health-interval" | "health-timeout" => &["--health-check=/"],
        "over-limit" => &["--max-rate=1/s"],
        "give-up" => &["--max-restarts=1/1m"],
        "tag-key" => &["--affinity=session"],
        "host-id" => &["--affinity=session", "--tag-key=a secret of some length"],
        "proxy-protocol" => &["--trusted-proxy=::2", "--client-ip-header=x-me"],
        "client-ip-header" => &["--trusted-proxy=::2", "--proxy-protocol"],
        "trusted-proxy" => &["--proxy-protocol"],
        _ => &[],
    }
}

/// What to put after a flag, so that it belongs to what runs.
fn program(key: &str) -> Vec<&'static str> {
    let rest: &[&str] = if node_keys().contains(key) { &["--", "x"] } else { &[] };
    [company(key), rest].concat()
}

fn keys_of(config: &Config) -> BTreeSet<String> {
    let yaml = config.to_yaml().expect("YAML");
    yaml.lines()
        .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
        .filter(|key| !key.starts_with('-'))
        .collect()
}

#[test]
fn the_defaults_are_these() {
    let expected = "listen:\n- 127.0.0.1:3000\nbacklog: 4096\nworkers: 2\naffinity: ip\n\
        ipv4-prefix: 32\nipv6-prefix: 64\nproxy-protocol: false\nunattributed: serve\npeek-timeout: 10s\npeek-timeout-action: hand-over\nmax-peeking: 16384\ndispatch: handover\nmax-in-flight: 64\nbusy-poll: 0s\nhold-timeout: 5s\nstart-timeout: 30s\n\
        drain-timeout: 25s\ndrain-signal: auto\nhang-timeout: 10s\nhang-kill: false\nlog-format: text\nlog-level: info\nrooms: auto\npath: /socket.io/\nno-serve-client: false\n\
        transports:\n- polling\n- websocket\nping-interval: 25000\nping-timeout: 20000\nupgrade-timeout: 10000\n\
        max-payload: 1000000\nconfine: auto\n";
    assert_eq!(without_sources(&told(&["--check", "-w", "2"])), expected);
    // With a program it is the program's defaults, and listeners only where haft has any of its own.
    let shared = expected.split_once("path:").map_or(expected, |(before, _)| before);
    let node =
        "node-style: auto\nnode-serialization: json\nwait-ready: false\nrelay-messages: false\nno-preload: false\n";
    for (flags, listeners, rest) in [
        (vec!["--dialect=haft"], "listen:\n- 127.0.0.1:3000\n", "dialect: haft\n".to_owned()),
        (vec!["--dialect=node"], "", format!("dialect: node\n{node}")),
        (vec![], "", format!("dialect: auto\n{node}")),
        (vec!["-l", "80"], "listen:\n- :80\n", format!("dialect: auto\n{node}")),
    ] {
        let expected = shared.replace("listen:\n- 127.0.0.1:3000\n", listeners) + "command:\n- x\n" + &rest;
        let shown = told(&[&["--check", "-w", "2"], &flags[..], &["--", "x"]].concat());
        assert_eq!(without_sources(&shown), expected);
    }
}

#[test]
fn the_documented_default_is_the_effective_one() {
    let command = command();
    for arg in command.get_arguments().filter(|arg| !arg.is_positional() && arg.get_action().takes_values()) {
        let (flag, help) = (key(arg), arg.get_help().map(ToString::to_string).unwrap_or_default());
        // Alone, since only such a flag does not go without another that has no default.
        let without = config(&if arg.get_default_values().is_empty() { Vec::new() } else { program(&flag) });
        match arg.get_default_values() {
            // clap documents its defaults by itself.
            [default] => {
                assert!(!help.contains("[default"), "{flag}: {help}");
                let typed = format!("--{flag}={}", default.to_str().expect("UTF-8"));
                assert_eq!(config(&[&[typed.as_str()], &program(&flag)[..]].concat()), without, "{typed}");
            }
            _ => {
                assert!(help.contains("[default: "), "{flag}: {help}");
                assert!(!keys_of(&without).contains(&flag), "{flag} has an effective default");
            }
        }
    }
}

#[test]
fn every_flag_shows_its_default() {
    for help in [told(&["-h"]), told(&["--help"])] {
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        // --config has one too, though it is no key.
        assert_eq!(words.matches("[default: ").count(), keys().len() + 1, "{help}");
    }
}

#[test]
fn every_flag_is_a_key_of_the_effective_configuration() {
    let folder = Folder::new();
    let dir = folder.path();
    let (folder_a, folder_b) = (format!("--static={dir}"), format!("--client-dist={dir}"));
    let token = format!("--admin-token-file={dir}/token");
    let told = [
        "--trusted-proxy=::1",
        "--client-ip-header=x-me",
        "--affinity=session",
        "--sticky-path=/a/",
        "--worker-nofile=64",
        "--user=app",
        "--worker-env=/etc/haft/env",
        "--log-file=/run/haft.log",
        "--prefix-output",
        "--host-id=A",
        "--max-rate-per-client=1/s",
        "--max-waiting-per-client=1",
        "--max-rate=1/s",
        "--allow=::1",
        "--deny=::1",
    ];
    let engine = [
        "--name=api",
        "--admin=9090",
        &token,
        &folder_a,
        &folder_b,
        "--cors-origin=*",
        "--max-memory=1G",
        "--health-check=/",
        "--max-age=1h",
        "--max-restarts=1/1m",
        "--tag-key=a secret of some length",
    ];
    let engine = config(&[&engine[..], &told].concat());
    let command = config(&["--redis=redis://127.0.0.1", "--", "x"]);
    let both: BTreeSet<_> = keys_of(&engine).union(&keys_of(&command)).cloned().collect();
    assert_eq!(both, keys());
}

#[test]
fn a_flag_its_key_and_its_variable_mean_the_same_and_the_flag_beats_them() {
    let folder = Folder::new();
    let covered: BTreeSet<_> = SAMPLES.iter().map(|(key, _, _)| (*key).to_owned()).collect();
    let rest: BTreeSet<_> = ["command", "log-level"].map(str::to_owned).into();
    assert_eq!(covered.union(&rest).cloned().collect::<BTreeSet<_>>(), keys(), "a flag without samples");
    for &(key, a, b) in SAMPLES {
        let (a, b) = (a.replace("DIR", folder.path()), b.replace("DIR", folder.path()));
        let (typed_a, typed_b) = (format!("--{key}={}", a.trim_matches('\'')), format!("--{key}={b}"));
        let file = folder.yaml(&format!("{key}: {a}\n"));
        let config = |args: &[&str]| config(&[args, &program(key)[..]].concat());
        assert_eq!(config(&["-c", &file]), config(&[&typed_a]), "{key}");
        assert_eq!(config(&["-c", &file, &typed_b]), config(&[&typed_b]), "{key}");
        assert_ne!(config(&[&typed_a]), config(&[&typed_b]), "{key}");
        let variable = (variable(key), a.trim_matches('\'').to_owned());
        let in_it = |args: &[&str]| config_in(&[(&variable.0, &variable.1)], &[args, &program(key)[..]].concat());
        assert_eq!(in_it(&[]), config(&[&typed_a]), "{}", variable.0);
        assert_eq!(in_it(&[&typed_b]), config(&[&typed_b]), "{}", variable.0);
    }
}

#[test]
fn a_command_is_a_list_or_a_text_and_what_is_typed_beats_it() {
    let folder = Folder::new();
    let words = |args: &[&str]| match config(args).program {
        Program::Command(command) => command.argv,
        Program::BuiltIn(_) => panic!("no command"),
    };
    assert_eq!(words(&["--", "node", "--x", "-w", "--"]), ["node", "--x", "-w", "--"]);
    for yaml in
        ["command: python3  w.py 1.10", "command: [python3, w.py, 1.10]", "command:\n- python3\n- w.py\n- '1.10'"]
    {
        let file = folder.yaml(yaml);
        assert_eq!(words(&["-c", &file]), ["python3", "w.py", "1.10"]);
        assert_eq!(words(&["-c", &file, "--", "other"]), ["other"]);
    }
    let file = folder.yaml("log-level: debug\ncommand: [a b, '', \"c\\\"d\"]");
    assert_eq!(words(&["--config", &file]), ["a b", "", "c\"d"]);
    assert_eq!(config(&["--config", &file]).log.level, "debug");
    assert!(refused(&["--"]).contains("there is no program after `--`"));
    assert!(refused(&["--", ""]).contains("COMMAND begins with an empty word: name a program"));
    let file = folder.yaml("\ncommand: ['']");
    assert!(refused(&["-c", &file]).contains("haft.yaml:2: command begins with an empty word"));
    assert!(refused(&["node", "server.js"]).contains("a program to run comes after '--': haft -- node"));
    assert!(refused(&["server.js"]).contains("a program to run comes after '--': haft -- node server.js"));
    assert!(
        refused(&["-w", "2", "app.py", "-v"]).contains("a program to run comes after '--': haft -- python3 app.py")
    );
}

#[test]
fn flags_of_the_built_in_worker_do_not_go_with_a_command() {
    let folder = Folder::new();
    let message = refused(&["--ping-timeout=1", "--path=/x", "--", "x"]);
    assert!(message.contains("--path, --ping-timeout belong to the built-in Socket.IO worker"), "{message}");
    let file = folder.yaml("workers: 1\nstatic: /\n");
    let message = refused(&["-c", &file, "--", "x"]);
    assert!(message.contains("haft.yaml:2: static belongs to the built-in"), "{message}");
    let file = folder.yaml("command: x\n");
    assert!(refused(&["-c", &file, "--transports=polling"]).contains("--transports belongs to"));
    for key in keys() {
        let of_engine = engine_keys().contains(key.as_str());
        assert_eq!(is_refused(&folder, &key, &["--", "x"]), of_engine, "{key}");
    }
}

#[test]
fn flags_of_a_command_do_not_go_without_one_nor_those_of_node_with_another() {
    let folder = Folder::new();
    for key in keys() {
        let of_command = node_keys().contains(key.as_str());
        assert_eq!(is_refused(&folder, &key, &[]), of_command, "{key}");
        if key != "dialect" && !engine_keys().contains(key.as_str()) {
            assert_eq!(is_refused(&folder, &key, &["--dialect=haft", "--", "x"]), of_command, "{key}");
        }
    }
}

fn engine_keys() -> BTreeSet<&'static str> {
    let engine = "path no-serve-client transports ping-interval ping-timeout upgrade-timeout max-payload cors-origin \
        static client-dist confine";
    engine.split_whitespace().collect()
}

fn node_keys() -> BTreeSet<&'static str> {
    "dialect node-style node-serialization wait-ready relay-messages no-preload".split_whitespace().collect()
}

/// Whether a flag is refused with these arguments after it.
fn is_refused(folder: &Folder, key: &str, rest: &[&str]) -> bool {
    let Some((_, value, _)) = SAMPLES.iter().find(|(known, _, _)| *known == key) else { return false };
    let flag = format!("--{key}={}", value.trim_matches('\'').replace("DIR", folder.path()));
    let outcome = parse_from([&["haft", &flag], company(key), rest].concat());
    matches!(outcome, ParseOutcome::Exit(_))
}

#[test]
fn a_mistake_in_the_file_is_told_with_file_line_and_key() {
    let folder = Folder::new();
    for (yaml, message) in [
        ("\n\nworkers: 0", "haft.yaml:3: workers: invalid value `0`: at least one worker is needed"),
        ("listen:\n - 1\n - x", "haft.yaml:1: listen: invalid value `x`: the port is not a number"),
        ("\nworker: 3", "haft.yaml:2: worker: there is no such key, did you mean workers?"),
        ("hold_timeout: 3", "haft.yaml:1: hold_timeout: there is no such key, did you mean hold-timeout?"),
        ("zzz: 3", "haft.yaml:1: zzz: there is no such key (haft --help"),
        ("check: true", "haft.yaml:1: check: it can only be typed (--check)"),
        ("listen: []", "haft.yaml:1: listen: the list is empty: leave the key out for the default"),
        ("\nworkers: [1, 2]", "haft.yaml:2: workers: it takes one value, not a list"),
        ("workers: {n: 1}", "haft.yaml:1: workers: write one value, or a list"),
        ("hold-timeout: 5", "haft.yaml:1: hold-timeout: invalid value `5`: give a unit, such as 5s or 5000ms"),
        ("prefix-output: yes", "haft.yaml:1: prefix-output: invalid value `yes`: write true or false"),
        ("cors-origin: *", "(put a text that begins with * in quotes)"),
        ("command: node 'my server.js'", "haft.yaml:1: command: no shell reads it: write a list"),
        ("command: ' '", "haft.yaml:1: command: it names no program"),
        ("workers: 1\nworkers: 2", "haft.yaml:2: workers: it is given twice"),
        ("\nadmin: 127.0.0.1:3000", "haft.yaml:2: admin 127.0.0.1:3000: it overlaps with 127.0.0.1:3000"),
        ("\nstatic: /no/such", "haft.yaml:2: static /no/such: No such file or directory"),
    ] {
        let file = folder.yaml(yaml);
        let provenance = refused(&["-c", &file]);
        assert!(provenance.contains(message), "{yaml:?}: {provenance}");
    }
}

#[test]
fn a_key_that_a_flag_beats_must_still_be_right() {
    let folder = Folder::new();
    let file = folder.yaml("workers: 0");
    assert!(refused(&["-c", &file, "-w", "1"]).contains("haft.yaml:1: workers"));
}

#[test]
fn a_file_may_say_nothing() {
    let folder = Folder::new();
    for yaml in ["", "# nothing\n", "workers:\nadmin: ~\npath: null\n"] {
        assert_eq!(config(&["-c", &folder.yaml(yaml)]), config(&[]));
    }
    assert!(refused(&["-c", "/no/such.yaml"]).contains("--config /no/such.yaml: No such file or directory"));
    assert!(refused(&["-c", ""]).contains("the name of the file is missing"));
}

#[test]
fn help_is_grouped_and_as_wide_as_the_terminal() {
    let topics = [
        "Listening:",
        "Workers:",
        "Routing:",
        "Hand-over:",
        "Timeouts:",
        "Care for workers:",
        "Programs (when a COMMAND is given):",
        "Built-in Socket.IO worker (when no COMMAND is given):",
        "Admin:",
        "Logging:",
        "Configuration:",
        "Examples:",
    ];
    let help = told(&["--help"]);
    let found: Vec<_> = help.lines().filter(|line| topics.contains(line)).collect();
    assert_eq!(found, topics);
    assert!(!help.contains("\nOptions:"), "a flag without a topic");
    for width in [80, 100] {
        let mut command = command().term_width(width);
        for help in [command.render_help().to_string(), command.render_long_help().to_string()] {
            let widest = help.lines().map(|line| line.trim_end().chars().count()).max();
            assert!(widest <= Some(width), "{help}");
        }
    }
}

#[test]
fn the_version_is_told() {
    for flag in ["-V", "--version"] {
        assert_eq!(told(&[flag]), format!("haft {}\n", env!("CARGO_PKG_VERSION")));
    }
}

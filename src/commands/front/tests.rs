//! What is written. Whether HAProxy and nginx take it, and do what it is for, tests/e2e/several-hosts.mjs shows.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    front: Front,
}

fn front(line: &str) -> Result<String, String> {
    let line = Line::try_parse_from(format!("front {line}").split(' ')).map_err(|error| error.to_string())?;
    line.front.text()
}

fn lines_of<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    text.lines().map(str::trim).filter(|line| line.starts_with(word)).collect()
}

#[test]
fn haproxy_routes_by_the_host_in_the_session_id() {
    let text = front("haproxy --host A=10.0.0.1:3000 --host b7=[2001:db8::1]:3001 --from 10.0.0.9").expect("a text");
    let expected = [
        "use-server 0A if { url_param(sid) -m reg 10A[A-Za-z0-9_-]{16}$ }",
        "use-server b7 if { url_param(sid) -m reg 1b7[A-Za-z0-9_-]{16}$ }",
    ];
    assert_eq!(lines_of(&text, "use-server"), expected);
    assert_eq!(lines_of(&text, "server "), ["server 0A 10.0.0.1:3000", "server b7 [2001:db8::1]:3001"]);
    assert_eq!(lines_of(&text, "bind"), ["bind :::80 v4v6"]);
    assert_eq!(lines_of(&text, "option forwardfor").len(), 1);
    assert_eq!(lines_of(&text, "default-server tcp-ut 10s").len(), 1);
    let flags = "# 0A: haft -l 10.0.0.1:3000 --affinity session --host-id 0A --tag-key @/etc/haft/tag-key --client-ip-header \
        x-forwarded-for --trusted-proxy 10.0.0.9 --admin 10.0.0.1:9090 -- node server.js";
    assert_eq!(lines_of(&text, "# 0A"), [flags]);
}

#[test]
fn haproxy_may_tell_addresses_by_the_proxy_protocol() {
    let text =
        front("haproxy --host A=10.0.0.1:3000 --client proxy --listen 127.0.0.1:8080 --admin-port 9 -- npm start")
            .expect("a text");
    assert!(
        text.contains("check port 9 inter 1s") && text.contains("send-proxy-v2\n") && !text.contains("forwardfor"),
        "{text}"
    );
    assert_eq!(lines_of(&text, "bind"), ["bind 127.0.0.1:8080"]);
    let [flags] = lines_of(&text, "# 0A")[..] else { panic!("{text}") };
    assert!(
        flags.contains(" --proxy-protocol --trusted-proxy THIS-PROXY'S-ADDRESS --admin 10.0.0.1:9 -- npm start"),
        "{flags}"
    );
}

#[test]
fn nginx_routes_by_the_host_in_the_session_id() {
    let text = front("nginx --host A=ten.example:3000 --host B=10.0.0.2:3000").expect("a text");
    assert_eq!(lines_of(&text, "\"~"), ["\"~10A[A-Za-z0-9_-]{16}$\" 0A;", "\"~10B[A-Za-z0-9_-]{16}$\" 0B;"]);
    assert_eq!(lines_of(&text, "upstream"), ["upstream haft_any {", "upstream haft_0A {", "upstream haft_0B {"]);
    assert_eq!(lines_of(&text, "listen"), ["listen 80;", "listen [::]:80;"]);
    assert_eq!(lines_of(&text, "zone"), ["zone haft_any 68k;", "zone haft_0A 68k;", "zone haft_0B 68k;"]);
    assert_eq!(lines_of(&text, "proxy_socket_keepalive"), ["proxy_socket_keepalive on;"]);
    assert_eq!(lines_of(&text, "# sysctl -w net.ipv4.tcp_keepalive_time=5 ").len(), 1, "{text}");
    let [flags] = lines_of(&text, "# 0A")[..] else { panic!("{text}") };
    assert!(
        flags.contains("haft -l 3000 ") && flags.contains(" --admin *:9090 "),
        "a name is none of this host's: {flags}"
    );
}

/// What is a flag of haft's in the comments is one.
#[test]
fn the_flags_of_each_host_are_flags() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "a-secret-of-some-length").expect("a file");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    for kind in ["haproxy --client proxy", "haproxy", "nginx"] {
        let text =
            front(&format!("{kind} --host A=10.0.0.1:3000 --host B=[::1]:3000 --from 10.0.0.9")).expect("a text");
        for id in ["0A", "0B"] {
            let [line] = lines_of(&text, &format!("# {id}: haft "))[..] else { panic!("{text}") };
            let line = line.replace("/etc/haft/tag-key", key.to_str().expect("UTF-8"));
            let words = line.split(": ").nth(1).expect("a command line").split(' ');
            let crate::flags::ParseOutcome::Run(config) = crate::flags::parse_from(words) else { panic!("{line}") };
            assert_eq!(config.sessions.host_id.map(|host| host.to_string()).as_deref(), Some(id));
        }
    }
}

#[test]
fn what_cannot_be_is_refused_in_a_sentence() {
    for (line, message) in [
        ("haproxy", "--host <ID=ADDR:PORT>"),
        ("caddy --host A=10.0.0.1:1", "possible values: haproxy, nginx"),
        ("haproxy --host 10.0.0.1:3000", "write a host as ID=ADDR:PORT"),
        ("haproxy --host A=10.0.0.1", "write a host as ID=ADDR:PORT"),
        ("haproxy --host A=10.0.0.1:0", "write a host as ID=ADDR:PORT"),
        ("haproxy --host abc=10.0.0.1:1", "write a host as ID=ADDR:PORT"),
        ("haproxy --host 0=10.0.0.1:1", "write a host as ID=ADDR:PORT"),
        ("nginx --host A=a;b:1", "write a host as ID=ADDR:PORT"),
        ("nginx --host A=[10.0.0.1]:1", "write a host as ID=ADDR:PORT"),
        ("haproxy --host A=10.0.0.1:1 --host 0A=10.0.0.2:1", "each host has a name and an address of its own"),
        ("haproxy --host A=10.0.0.1:1 --host B=10.0.0.1:1", "each host has a name and an address of its own"),
        ("nginx --host A=10.0.0.1:1 --client proxy", "nginx passes a client's address to hosts only by a header"),
    ] {
        let error = front(line).expect_err(line);
        assert!(error.contains(message), "{line}: {error}");
    }
}

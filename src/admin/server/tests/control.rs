//! Which callers may change something, over real sockets.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::*;

/// A server on TCP, with or without a token file; it ends with this value.
struct Remote {
    folder: TempDir,
    addr: SocketAddr,
    control: Control,
    task: tokio::task::JoinHandle<()>,
}

impl Remote {
    fn start(bind: &str, with_token: bool) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let bound = std::net::TcpListener::bind(bind).expect("bind");
        let addr = bound.local_addr().expect("address");
        let listener = AdminListener::from_tcp(bound).expect("listener");
        let control = master(example::snapshot());
        let token_file = with_token.then(|| TokenFile::new(folder.path().join("token")));
        let task = tokio::spawn(serve(listener, control.clone(), token_file));
        let remote = Self { folder, addr, control, task };
        remote.write_token("first-token", 0o600);
        remote
    }

    /// Puts another token into the file's place, as one would.
    fn write_token(&self, token: &str, mode: u32) {
        let [new, path] = ["new", "token"].map(|name| self.folder.path().join(name));
        fs::write(&new, format!("{token}\n")).expect("file");
        fs::set_permissions(&new, Permissions::from_mode(mode)).expect("mode");
        fs::rename(new, path).expect("rename");
    }

    async fn ask(&self, request: &str) -> Reply {
        let stream = TcpStream::connect(self.addr).await.expect("connect");
        reached(Reply::from(stream, request)).await.expect("an answer")
    }

    /// Asks for a reload with these lines in the head.
    async fn reload(&self, lines: &[&str]) -> Reply {
        self.ask(&post("/reload", &self.addr.to_string(), lines)).await
    }

    /// How often a caller was refused for a reason, by the metrics.
    async fn refused(&self, reason: &str) -> f64 {
        let page = Exposition::read(&self.ask(&get("/metrics")).await.body, Format::Text);
        page.value("haft_control_refused_total", &[("reason", reason)]).expect("the reason is listed")
    }

    fn done(&self) -> u64 {
        self.control.audit.counts().requests.iter().map(|(_, count)| count).sum()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn post(path: &str, host: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")
}

const RIGHT: &str = "Authorization: Bearer first-token";

#[tokio::test]
async fn what_workers_wrote_is_for_those_who_may_change_something() {
    let server = Server::usual();
    let own = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let reply = server.ask(&own("/logs?slot=1&after=7")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "[w1] a line\n"));
    assert_eq!(server.ask(&own("/logs?slot=x")).await.status, 400);
    for (sid, signed) in [("ours", true), ("forged", false)] {
        let reply = server.ask(&own(&format!("/session?sid={sid}"))).await;
        assert_eq!((reply.status, reply.body), (200, format!("{{\"signed\":{signed}}}\n")));
    }
    assert_eq!(server.ask(&own("/session")).await.status, 400);
    let remote = Remote::start("127.0.0.1:0", true);
    for path in ["/logs", "/session?sid=ours"] {
        assert_eq!(remote.ask(&get(path)).await.status, 403, "it names another host");
    }
    let asks = |lines: &str| format!("GET /logs HTTP/1.1\r\nHost: {}\r\n{lines}\r\n", remote.addr);
    assert_eq!(remote.ask(&asks("")).await.status, 401);
    assert_eq!(remote.ask(&asks(&format!("{RIGHT}\r\n"))).await.status, 200);
    assert_eq!(remote.refused("no_token").await, 1.0);
}

#[tokio::test]
async fn on_a_unix_socket_haft_s_own_user_changes_what_there_is_to_change() {
    let server = Server::usual();
    for (path, status, body) in [
        ("/reload", 202, "Reload\n"),
        ("/scale?workers=3", 202, "Scale { workers: 3 }\n"),
        ("/drain?slot=1", 200, "Drain { slot: 1 }\n"),
        ("/undrain?slot=1", 200, "Undrain { slot: 1 }\n"),
        ("/scale?workers=99", 409, "a reload is under way: try again\n"),
        ("/drain?slot=99", 400, "there is no slot 99: write one from 0 to 1\n"),
        ("/scale", 400, "workers is missing: write POST /scale?workers=N\n"),
        ("/reload?now", 400, "there is a parameter that this path does not have: write POST /reload\n"),
    ] {
        let reply = server.ask(&post(path, "localhost", &[])).await;
        assert_eq!((reply.status, reply.body.as_str()), (status, body), "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
    }
    let page = Exposition::read(&server.ask(&get("/metrics")).await.body, Format::Text);
    for (action, count) in [("reload", 1.0), ("scale", 1.0), ("drain", 1.0), ("undrain", 1.0)] {
        assert_eq!(page.value("haft_control_requests_total", &[("action", action)]), Some(count), "{action}");
    }
    assert_eq!(page.sum("haft_control_refused_total"), 0.0);
    let status: serde_json::Value = serde_json::from_str(&server.ask(&get("/status")).await.body).expect("JSON");
    assert_eq!(status["control"]["requests"]["reload"], 1);
}

#[tokio::test]
async fn an_answer_is_json_for_a_client_that_names_it() {
    let server = Server::usual();
    for (path, status, json) in [
        ("/drain?slot=1", 200, serde_json::json!({ "message": "Drain { slot: 1 }" })),
        ("/scale?workers=99", 409, serde_json::json!({ "error": "a reload is under way: try again" })),
    ] {
        let reply = server.ask(&post(path, "localhost", &["Accept: application/json"])).await;
        assert_eq!((reply.status, reply.header("content-type")), (status, "application/json"), "{path}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&reply.body).expect("JSON"), json, "{path}");
    }
}

#[tokio::test]
async fn only_post_changes_something_and_only_without_a_body() {
    let server = Server::usual();
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let reply = server.ask(&post("/reload", "localhost", &[]).replace("POST", method)).await;
        assert_eq!((reply.status, reply.header("allow")), (405, "POST"), "{method}");
    }
    let with_body = post("/scale?workers=2", "localhost", &["Content-Length: 9"]) + "workers=2";
    assert_eq!(server.ask(&with_body).await.status, 413);
    let empty = post("/scale?workers=2", "localhost", &["Content-Length: 0"]);
    assert_eq!(server.ask(&empty).await.status, 202);
}

#[tokio::test]
async fn on_a_unix_socket_no_web_page_and_no_foreign_host_changes_anything() {
    let server = Server::usual();
    for (host, line, text) in [
        ("localhost", "Origin: http://localhost", "control is not for a web page"),
        ("localhost", "Origin: null", "control is not for a web page"),
        ("evil.example", "X: y", "the header Host names another host"),
    ] {
        let reply = server.ask(&post("/reload", host, &[line])).await;
        assert_eq!(reply.status, 403, "{host} {line}");
        assert!(reply.body.starts_with(text), "{}", reply.body);
    }
    let page = Exposition::read(&server.ask(&get("/metrics")).await.body, Format::Text);
    assert_eq!(page.value("haft_control_refused_total", &[("reason", "foreign_origin")]), Some(2.0));
    assert_eq!(page.value("haft_control_refused_total", &[("reason", "foreign_host")]), Some(1.0));
    assert_eq!(page.sum("haft_control_requests_total"), 0.0);
}

/// A client on the socket that is another user, if this test may become one: Python, which every host of ours has.
async fn ask_as_nobody(socket: &Path) -> String {
    const CLIENT: &str = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
        s.sendall(b'POST /reload HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'); s.shutdown(1); \
        sys.stdout.write(s.makefile().read())";
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/env", "python3", "-c", CLIENT]);
    let output = reached(command.arg(socket).stdin(Stdio::null()).output()).await.expect("setpriv");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn on_a_unix_socket_another_user_changes_nothing() {
    let control = master(example::snapshot());
    // Without root a test cannot become another user, but haft can belong to another one.
    let root = geteuid().is_root();
    let own_uid = if root { 0 } else { geteuid().as_raw() + 1 };
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("admin");
    let bound = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    for (path, mode) in [(folder.path(), 0o755), (&path, 0o666)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode");
    }
    let guard = Guard { own_uid, token_file: None };
    let desk = Desk { limits: AdminLimits::DEFAULT, control: control.clone(), guard, streams: Streams::default() };
    let task = tokio::spawn(serve_from(desk, AdminListener::from_unix(bound).expect("listener")));
    let answer = if root {
        ask_as_nobody(&path).await
    } else {
        let stream = UnixStream::connect(&path).await.expect("connect");
        let reply = reached(Reply::from(stream, &post("/reload", "localhost", &[]))).await.expect("an answer");
        format!("HTTP/1.1 {} {}", reply.status, reply.body)
    };
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("control is for root and the user that haft runs as"), "{answer}");
    let counts = control.audit.counts();
    assert!(counts.refused.contains(&("foreign_uid", 1)), "{counts:?}");
    assert!(counts.requests.iter().all(|(_, count)| *count == 0), "{counts:?}");
    task.abort();
}

#[tokio::test]
async fn on_tcp_control_is_off_without_a_token_file_and_reading_is_not() {
    let remote = Remote::start("127.0.0.1:0", false);
    for lines in [&[][..], &[RIGHT]] {
        let reply = remote.reload(lines).await;
        assert_eq!(reply.status, 403, "{lines:?}");
        assert_eq!(reply.body, "control is off on TCP: use unix: or --admin-token-file\n", "{lines:?}");
    }
    assert_eq!(remote.refused("control_off").await, 2.0);
    assert_eq!((remote.ask(&get("/status")).await.status, remote.done()), (200, 0));
}

#[tokio::test]
async fn on_tcp_the_token_opens_control_and_can_be_changed() {
    let remote = Remote::start("127.0.0.1:0", true);
    let none = remote.reload(&[]).await;
    assert_eq!((none.status, none.header("www-authenticate")), (401, "Bearer realm=\"haft\""));
    let basic = remote.reload(&["Authorization: Basic Zmlyc3QtdG9rZW4="]).await;
    assert_eq!((basic.status, remote.refused("no_token").await), (401, 2.0));
    let wrong = remote.reload(&["Authorization: Bearer second-token"]).await;
    assert_eq!(
        (wrong.status, wrong.header("www-authenticate")),
        (401, "Bearer realm=\"haft\", error=\"invalid_token\"")
    );
    assert!(!wrong.body.contains("first-token"), "{}", wrong.body);
    assert_eq!((remote.done(), remote.refused("wrong_token").await), (0, 1.0));
    assert_eq!(remote.reload(&[RIGHT]).await.status, 202);

    remote.write_token("second-token", 0o600);
    assert_eq!(remote.reload(&[RIGHT]).await.status, 401);
    assert_eq!(remote.reload(&["Authorization: Bearer second-token"]).await.status, 202);
    assert_eq!((remote.done(), remote.refused("wrong_token").await), (2, 2.0));
}

#[tokio::test]
async fn a_token_file_that_has_become_public_or_is_gone_opens_nothing() {
    let remote = Remote::start("127.0.0.1:0", true);
    remote.write_token("first-token", 0o644);
    let reply = remote.reload(&[RIGHT]).await;
    assert_eq!((reply.status, reply.header("www-authenticate")), (403, ""));
    assert!(!reply.body.contains(remote.folder.path().to_str().expect("UTF-8")), "{}", reply.body);
    fs::remove_file(remote.folder.path().join("token")).expect("file");
    assert_eq!(remote.reload(&[RIGHT]).await.status, 403);
    assert_eq!((remote.done(), remote.refused("token_file").await), (0, 2.0));
    remote.write_token("first-token", 0o600);
    assert_eq!(remote.reload(&[RIGHT]).await.status, 202);
}

#[tokio::test]
async fn on_tcp_the_right_token_helps_no_web_page_and_no_foreign_host() {
    let remote = Remote::start("127.0.0.1:0", true);
    let (own, port) = (remote.addr.to_string(), remote.addr.port());
    for origin in ["null", "http://evil.example", "https://localhost", "http://127.0.0.1:1"] {
        assert_eq!(remote.reload(&[RIGHT, &format!("Origin: {origin}")]).await.status, 403, "{origin}");
    }
    for host in [format!("evil.example:{port}"), "127.0.0.1:1".to_owned(), "evil.example".to_owned()] {
        assert_eq!(remote.ask(&post("/reload", &host, &[RIGHT])).await.status, 403, "{host}");
    }
    let target = post(&format!("http://evil.example:{port}/reload"), &own, &[RIGHT]);
    assert_eq!(remote.ask(&target).await.status, 403);
    assert_eq!((remote.refused("foreign_origin").await, remote.refused("foreign_host").await), (4.0, 4.0));
    assert_eq!(remote.done(), 0);
    for (host, origin) in
        [(own.clone(), format!("http://{own}")), (format!("localhost:{port}"), format!("http://{own}"))]
    {
        let reply = remote.ask(&post("/reload", &host, &[RIGHT, &format!("Origin: {origin}")])).await;
        assert_eq!(reply.status, 202, "{host} {origin}: {}", reply.body);
    }
}

#[tokio::test]
async fn a_dual_stack_listener_knows_its_ipv4_clients_by_their_address() {
    let remote = Remote::start("[::]:0", true);
    let port = remote.addr.port();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
    let reply = Reply::from(stream, &post("/reload", &format!("127.0.0.1:{port}"), &[RIGHT])).await;
    assert_eq!(reply.map(|reply| reply.status), Some(202));
}

#[tokio::test]
async fn a_change_that_the_master_never_answers_is_told_so() {
    let (control, _unanswered) = channel();
    let server = Server::start(AdminLimits { reply_time: Duration::from_millis(20), ..UNLIMITED }, control);
    let reply = server.ask(&post("/reload", "localhost", &[])).await;
    assert_eq!((reply.status, reply.body.as_str()), (503, "the master did not answer in time\n"));
}

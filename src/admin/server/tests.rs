//! The server with a master that is only a task, over real sockets, spoken to by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::Receiver;

use super::super::exposition::Exposition;
use super::super::{
    Change, ControlRequest, Denied, Format, LinesWanted, LogLine, Snapshot, WorkerStage, channel, example,
};
use super::*;

mod control;
mod live;
mod places;

/// So long that no test ever waits for it.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// Tests of one limit set all others to this.
const UNLIMITED: AdminLimits = AdminLimits {
    connections: 1,
    idle: 1,
    head: 16 * 1024,
    head_time: NEVER,
    reply_time: NEVER,
    connection_time: NEVER,
    linger_time: NEVER,
};

/// Waits for a state with a deadline.
async fn reached<T>(state: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), state).await.expect("the state within the deadline")
}

/// A master that answers each request with the same snapshot.
fn master(snapshot: Snapshot) -> Control {
    let (control, mut requests) = channel();
    let mut trace = crate::handover::trace::Trace::default();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            match request {
                ControlRequest::Snapshot(reply) => drop(reply.send((snapshot.clone(), Vec::new()))),
                ControlRequest::Change(change, reply) => drop(reply.send(changed(change))),
                ControlRequest::Trace(filter, reply) => drop(reply.send(trace.follow(filter))),
                ControlRequest::Logs(wanted, reply) => drop(reply.send(vec![line(wanted)])),
                ControlRequest::Session(sid, reply) => drop(reply.send(sid == "ours")),
            }
        }
    });
    control
}

/// That master's answer to a request for lines.
fn line(wanted: LinesWanted) -> LogLine {
    LogLine { number: wanted.after + 1, unix_ms: 0, slot: wanted.slot.unwrap_or(0), text: "a line".to_owned() }
}

/// That master's answer to a change.
fn changed(change: Change) -> Result<String, Denied> {
    match change {
        Change::Scale { workers: 99 } => Err(Denied::Busy("a reload is under way: try again".to_owned())),
        Change::Drain { slot: 99 } => Err(Denied::Impossible("there is no slot 99: write one from 0 to 1".to_owned())),
        change => Ok(format!("{change:?}")),
    }
}

/// A running server on a Unix socket; it ends with this value.
struct Server {
    folder: TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    fn start(limits: AdminLimits, control: Control) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let bound = std::os::unix::net::UnixListener::bind(folder.path().join("admin")).expect("bind");
        let listener = AdminListener::from_unix(bound).expect("listener");
        let guard = Guard { own_uid: geteuid().as_raw(), token_file: None };
        Self {
            folder,
            task: tokio::spawn(serve_from(Desk { limits, control, guard, streams: Streams::default() }, listener)),
        }
    }

    fn usual() -> Self {
        Self::start(AdminLimits::DEFAULT, master(example::snapshot()))
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("admin")).await.expect("connect")
    }

    async fn ask(&self, request: &str) -> Reply {
        reached(async { Reply::from(self.connect().await, request).await.expect("an answer") }).await
    }

    /// Asks until an honest client is answered, however often a short limit cuts it too.
    async fn serves_again(&self) {
        reached(async {
            while Reply::from(self.connect().await, &get("/healthz")).await.is_none_or(|reply| reply.status != 200) {}
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: haft\r\n\r\n")
}

/// An answer as it came over the wire.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Reply {
    /// Sends a request and reads until the server closes; nothing if what came is no whole head.
    async fn from(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Option<Self> {
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.ok()?;
        let text = String::from_utf8(text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Some(Self { status, headers, body: body.to_owned() })
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

#[tokio::test]
async fn every_page_answers_over_tcp_as_over_a_unix_socket() {
    let bound = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let addr = bound.local_addr().expect("address");
    let listener = AdminListener::from_tcp(bound).expect("listener");
    let over_tcp = tokio::spawn(serve(listener, master(example::snapshot()), None));
    let server = Server::usual();

    for (path, content_type, part) in [
        ("/", "text/plain; charset=utf-8", "/readyz"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "haft_connections_accepted_total 100\n"),
        ("/status", "application/json", "\"accepted\": 100"),
        ("/healthz", "text/plain; charset=utf-8", "ok\n"),
        ("/readyz?verbose", "text/plain; charset=utf-8", "ready: 1 of 2 slots ready\nslot 1: gone"),
    ] {
        let unix = server.ask(&get(path)).await;
        let stream = TcpStream::connect(addr).await.expect("connect");
        let tcp = reached(Reply::from(stream, &get(path))).await.expect("an answer");
        assert_eq!((unix.status, tcp.status), (200, 200), "{path}");
        assert_eq!(unix.body, tcp.body, "{path}");
        assert!(unix.body.contains(part), "{path}: {}", unix.body);
        assert_eq!(unix.header("content-type"), content_type, "{path}");
        assert_eq!(unix.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(unix.header("cache-control"), "no-store", "{path}");
        assert_eq!(unix.header("connection"), "close", "{path}");
        assert!(!unix.headers.keys().any(|name| name.starts_with("access-control")), "{:?}", unix.headers);
    }
    over_tcp.abort();
}

#[tokio::test]
async fn head_gives_the_same_head_without_a_body() {
    let server = Server::usual();
    for path in ["/", "/metrics", "/status", "/healthz", "/readyz", "/nowhere"] {
        let mut got = server.ask(&get(path)).await;
        let mut headed = server.ask(&format!("HEAD {path} HTTP/1.1\r\nHost: haft\r\n\r\n")).await;
        assert_eq!(got.header("content-length"), got.body.len().to_string(), "{path}");
        got.headers.remove("date");
        headed.headers.remove("date");
        assert_eq!((headed.status, headed.headers, headed.body.as_str()), (got.status, got.headers, ""), "{path}");
    }
}

#[tokio::test]
async fn the_client_chooses_the_form_of_the_metrics() {
    let server = Server::usual();
    let request = "GET /metrics HTTP/1.1\r\nHost: haft\r\nAccept: text/plain;q=0.5\r\n\
                   Accept: application/openmetrics-text;version=1.0.0\r\n\r\n";
    let reply = server.ask(request).await;
    assert_eq!(reply.header("content-type"), Format::OpenMetrics.content_type());
    assert_eq!(reply.header("vary").to_lowercase(), "accept");
    let open_metrics = Exposition::read(&reply.body, Format::OpenMetrics);
    let text = Exposition::read(&server.ask(&get("/metrics")).await.body, Format::Text);
    assert_eq!(open_metrics.samples, text.samples);
}

#[tokio::test]
async fn a_wrong_path_or_method_is_told_what_is_right() {
    let server = Server::usual();
    let reply = server.ask(&get("/metric")).await;
    assert_eq!(reply.status, 404);
    for path in ["/metrics", "/status", "/healthz", "/readyz"] {
        assert!(reply.body.contains(path), "{}", reply.body);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let reply = server.ask(&format!("{method} /status HTTP/1.1\r\nHost: haft\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!((reply.status, reply.header("allow")), (405, "GET, HEAD"), "{method}");
    }
}

#[tokio::test]
async fn a_body_is_refused_and_its_sender_still_reads_why() {
    let server = Server::usual();
    let body = "x".repeat(128 * 1024);
    for request in [
        format!("GET /status HTTP/1.1\r\nHost: haft\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        format!("GET /status HTTP/1.1\r\nHost: haft\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n{body}\r\n0\r\n\r\n"),
    ] {
        assert_eq!(server.ask(&request).await.status, 413);
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_next_client_is_served() {
    let server = Server::usual();
    assert_eq!(server.ask("nonsense\r\n\r\n").await.status, 400);
    assert_eq!(server.ask(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(64 * 1024))).await.status, 431);
    server.serves_again().await;
}

#[tokio::test]
async fn readiness_names_the_slots_that_are_not_ready() {
    let (mut starting, mut stopping) = (example::snapshot(), example::snapshot());
    starting.slots[0].state = WorkerStage::Starting;
    stopping.stopping = true;
    let (mut hung, mut drained) = (example::snapshot(), example::snapshot());
    hung.slots[0].hung = true;
    drained.slots[0].drained = true;
    const GONE: &str = "slot 1: gone, drained, kept out since its workers ended too often, last exit: signal SIGKILL\n";
    for (snapshot, status, text) in [
        (example::snapshot(), 200, "ready: 1 of 2 slots ready\n"),
        (starting, 503, "not ready: 0 of 2 slots ready\nslot 0: starting\n"),
        (hung, 503, "not ready: 0 of 2 slots ready\nslot 0: ready, hung\n"),
        (drained, 503, "not ready: 0 of 2 slots ready\nslot 0: ready, drained\n"),
        (stopping, 503, "not ready, the master is stopping: 1 of 2 slots ready\n"),
    ] {
        let server = Server::start(AdminLimits::DEFAULT, master(snapshot));
        let reply = server.ask(&get("/readyz")).await;
        assert_eq!((reply.status, reply.body), (status, format!("{text}{GONE}")));
        assert_eq!(server.ask(&get("/healthz")).await.status, 200);
    }
}

/// Asks each page of a master that gives no answer.
async fn unavailable(limits: AdminLimits, control: Control, why: &str) {
    let server = Server::start(limits, control);
    for path in ["/metrics", "/status", "/healthz", "/readyz"] {
        let reply = server.ask(&get(path)).await;
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.body.contains(why), "{path}: {}", reply.body);
    }
}

#[tokio::test]
async fn a_master_that_has_stopped_or_hangs_is_not_healthy() {
    let (control, requests) = channel();
    let hanging = AdminLimits { reply_time: Duration::from_millis(20), ..UNLIMITED };
    unavailable(hanging, control.clone(), "did not answer in time").await;
    drop(requests);
    unavailable(UNLIMITED, control, "has stopped").await;
}

#[tokio::test]
async fn each_answer_is_one_instant() {
    let asked = Arc::new(AtomicU64::new(0));
    let (control, mut requests) = channel();
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Some(ControlRequest::Snapshot(reply)) = requests.recv().await {
            let mut snapshot = example::snapshot();
            let more = count.fetch_add(1, Ordering::Relaxed) + 1;
            (snapshot.accepted, snapshot.delivered[0]) = (snapshot.accepted + more, snapshot.delivered[0] + more);
            reply.send((snapshot, Vec::new())).expect("the asker waits");
        }
    });
    let server = Server::start(AdminLimits::DEFAULT, control);
    for scrape in 1..=5_u32 {
        let page = Exposition::read(&server.ask(&get("/metrics")).await.body, Format::Text);
        let settled = page.sum("haft_connections_delivered_total") + page.sum("haft_connections_refused_total");
        let accepted = page.sum("haft_connections_accepted_total");
        assert_eq!(accepted, 100.0 + f64::from(scrape));
        assert_eq!(accepted, settled + page.sum("haft_connections_in_flight"));
        assert_eq!(asked.load(Ordering::Relaxed), u64::from(scrape), "one question per answer");
    }
}

#[tokio::test]
async fn silent_clients_are_cut_by_the_time_for_the_head() {
    let server =
        Server::start(AdminLimits { head_time: Duration::from_millis(20), ..UNLIMITED }, master(example::snapshot()));
    for sent in ["", "GET /healthz HTTP/1.1\r\nHo"] {
        let mut silent = server.connect().await;
        silent.write_all(sent.as_bytes()).await.expect("write");
        // No other client comes that would push it out.
        reached(silent.read_to_end(&mut Vec::new())).await.expect("an orderly end");
    }
    server.serves_again().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_by_the_time_of_a_connection() {
    let mut huge = example::snapshot();
    huge.listen = vec!["x".repeat(16 << 20)];
    let server = Server::start(AdminLimits { connection_time: Duration::from_millis(200), ..UNLIMITED }, master(huge));
    let mut deaf = server.connect().await;
    deaf.write_all(get("/status").as_bytes()).await.expect("write");
    sleep(Duration::from_millis(400)).await;
    let mut text = Vec::new();
    // The end may come as a reset.
    let _ = reached(deaf.read_to_end(&mut text)).await;
    assert!(text.len() < 16 << 20, "the whole answer fitted into the socket: nothing was tested");
}

#[tokio::test]
async fn a_client_that_never_closes_is_cut_once_it_was_answered() {
    let server =
        Server::start(AdminLimits { linger_time: Duration::from_millis(20), ..UNLIMITED }, master(example::snapshot()));
    let mut kept = server.connect().await;
    let mut text = String::new();
    kept.write_all(get("/healthz").as_bytes()).await.expect("write");
    reached(kept.read_to_string(&mut text)).await.expect("an orderly end");
    assert!(text.ends_with("ok\n"), "{text}");
    reached(async {
        while kept.write_all(b"x").await.is_ok() {
            let_others_run().await
        }
    })
    .await;
}

/// The next request, and how it is answered.
async fn next(
    requests: &mut Receiver<ControlRequest>,
) -> tokio::sync::oneshot::Sender<(Snapshot, Vec<super::super::figures::FiguresSource>)> {
    match reached(requests.recv()).await {
        Some(ControlRequest::Snapshot(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

/// Everything is on this thread: what can happen by itself has happened after so many turns.
async fn let_others_run() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_closes_its_writing_end_is_answered() {
    let (control, mut requests) = channel();
    let server = Server::start(AdminLimits::DEFAULT, control);
    let mut stream = server.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.expect("write");
    stream.shutdown().await.expect("shutdown");
    let reply = next(&mut requests).await;
    let_others_run().await;
    reply.send((example::snapshot(), Vec::new())).expect("the end of input is not the end of the request");
    let mut text = String::new();
    reached(stream.read_to_string(&mut text)).await.expect("read");
    assert!(text.contains(" 200 ") && text.ends_with("\r\n\r\nok\n"), "{text}");
}

#[tokio::test]
async fn more_clients_than_allowed_wait_and_are_served_when_others_have_left() {
    let (control, mut requests) = channel();
    let server = Server::start(AdminLimits { connections: 2, idle: 2, ..UNLIMITED }, control);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let stream = server.connect().await;
        clients
            .push(tokio::spawn(async move { Reply::from(stream, &get("/healthz")).await.map(|reply| reply.status) }));
    }
    let (first, second) = (next(&mut requests).await, next(&mut requests).await);
    let_others_run().await;
    assert!(requests.try_recv().is_err(), "three at once");
    first.send((example::snapshot(), Vec::new())).expect("the first waits");
    next(&mut requests).await.send((example::snapshot(), Vec::new())).expect("the third waits");
    second.send((example::snapshot(), Vec::new())).expect("the second waits");
    for client in clients {
        assert_eq!(reached(client).await.expect("a client"), Some(200));
    }
}

#[tokio::test]
async fn its_connections_end_with_the_server() {
    let (control, mut requests) = channel();
    let server = Server::start(UNLIMITED, control);
    let mut stream = server.connect().await;
    stream.write_all(get("/status").as_bytes()).await.expect("write");
    let mut unanswered = next(&mut requests).await;
    server.task.abort();
    assert_eq!(reached(stream.read(&mut [0; 64])).await.expect("an orderly end"), 0);
    reached(unanswered.closed()).await;
}

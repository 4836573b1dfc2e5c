//! Connections that proxies use for many clients: the way back to the master, and what must never take it.

use std::net::{Ipv4Addr, TcpListener as StdTcpListener};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::handover::haft::{FromWorker, MasterEnd, Passed};
use crate::worker::incoming::tests::{hand_over, rig, said};
use crate::worker::tags::tests::{OTHER, tagger};
use crate::worker::{Incoming, Passer};

/// A worker with a master that hands over to it.
struct Rig {
    master: MasterEnd,
    listener: StdTcpListener,
    app: App,
    passer: Passer,
    handed_over: u64,
}

impl Rig {
    async fn new(settings: Settings) -> Self {
        Self::with(settings, true).await
    }

    async fn with(settings: Settings, tagging: bool) -> Self {
        let (mut master, mut incoming) = rig();
        let passer = incoming.passer();
        let tags = tagging.then(|| incoming.tags().expect("tags"));
        let app = App::new(&settings, IDENTITY, tags).expect("settings");
        tokio::spawn(work(incoming, app.clone()));
        assert!(matches!(said(&mut master).await.0, FromWorker::Ready { tags, .. } if tags == tagging));
        let listener = StdTcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        Self { master, listener, app, passer, handed_over: 0 }
    }

    /// A client whose connection the worker has.
    async fn client(&mut self) -> Wire {
        let wire = Wire::open(self.listener.local_addr().expect("address")).await;
        let (connection, client) = self.listener.accept().expect("accept");
        connection.set_nonblocking(true).expect("non-blocking");
        let local = EndAddr::Ip(self.listener.local_addr().expect("address"));
        hand_over(&mut self.master, self.handed_over, EndAddr::Ip(client), local, connection);
        self.handed_over += 1;
        wire
    }

    /// What the worker passes on.
    async fn passed(&mut self) -> (Passed, TcpStream) {
        match said(&mut self.master).await {
            (FromWorker::Passed(passed), Some(connection)) => {
                let stream = std::net::TcpStream::from(connection);
                (passed, TcpStream::from_std(stream).expect("a TCP connection"))
            }
            other => panic!("not passed: {other:?}"),
        }
    }

    /// Asserts that the worker has passed nothing on.
    fn passed_nothing(&mut self) {
        while let Some((frame, _)) = self.master.receive().expect("receive") {
            assert!(matches!(frame, FromWorker::Taken { .. }), "{frame:?}");
        }
    }
}

async fn work(mut incoming: Incoming, app: App) {
    let passer = incoming.passer();
    while let Some(connection) = incoming.next().await.expect("no error") {
        tokio::spawn(app.serve_handed_over(connection, &passer));
    }
}

/// A request for a session of another worker.
fn anothers() -> String {
    let sid = tagger().append("AAAAAAAAAAAAAAAA", OTHER);
    let body = "4a body that nobody may lose\u{1e}42[\"x\"]";
    format!("POST {POLLING}&sid={sid} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    soon("what was unread", stream.read_exact(&mut bytes)).await.expect("read");
    bytes
}

/// The connection is passed on; its request arrives to the last byte, and the answer gets back.
async fn goes_back(rig: &mut Rig, mut wire: Wire, request: &str) {
    let (passed, mut stream) = rig.passed().await;
    assert_eq!((passed.tag, passed.listener), (OTHER, 3));
    assert_eq!(passed.client, EndAddr::Ip(wire.stream.local_addr().expect("address")));
    assert_eq!(passed.local, EndAddr::Ip(rig.listener.local_addr().expect("address")));
    assert_eq!(String::from_utf8_lossy(&exactly(&mut stream, request.len()).await), request);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthere").await.expect("write");
    assert_eq!(wire.reply().await.text(), "there");
    drop(stream);
    assert!(wire.closed().await.is_empty(), "the worker has no copy left");
    let app = rig.app.clone();
    until("it is no connection of the worker's", || app.connections() == 0).await;
}

/// The session is unknown here, and the connection is not used again.
async fn is_refused(rig: &mut Rig, mut wire: Wire) {
    let refused = wire.reply().await;
    assert_eq!((refused.status, refused.text()), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(wire.closed().await.is_empty());
    rig.passed_nothing();
}

#[tokio::test]
async fn a_request_for_another_worker_goes_back_to_the_master_unread() {
    let mut rig = Rig::new(Settings::default()).await;
    for earlier in 1..4 {
        let mut wire = rig.client().await;
        for _ in 0..earlier {
            let sid = open(&mut wire).await;
            wire.ask(&format!("POST {POLLING}&sid={sid}"), &[], "40").await;
            assert_eq!(wire.reply().await.text(), "ok");
            poll_for(&mut wire, &sid, "hello").await;
            assert_eq!(wire.get("/haft/page.json").await.status, 200);
            assert_eq!(wire.get("/nothing").await.status, 404);
        }
        wire.send(anothers().as_bytes()).await;
        goes_back(&mut rig, wire, &anothers()).await;
    }
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_goes_back_too() {
    let mut rig =
        Rig::new(Settings { ping_interval: std::time::Duration::from_millis(50), ..Settings::default() }).await;
    let mut wire = rig.client().await;
    let sid = open(&mut wire).await;
    for byte in format!("GET {POLLING}&sid={sid} HTTP/1.1\r\nhost: x\r\n\r\n").bytes() {
        wire.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(wire.reply().await.status, 200, "and one that is ours is answered");
    let (line, rest) =
        anothers().split_once("\r\n").map(|(line, rest)| (line.to_owned(), rest.to_owned())).expect("line");
    for byte in line.bytes() {
        wire.send(&[byte]).await;
        // As long as the line is not whole the connection is not passed on.
        rig.passed_nothing();
        tokio::task::yield_now().await;
    }
    wire.send(format!("\r\n{rest}").as_bytes()).await;
    goes_back(&mut rig, wire, &anothers()).await;
}

#[tokio::test]
async fn half_a_line_is_waited_for_without_asking_again_and_again() {
    let mut rig = Rig::new(Settings::default()).await;
    let (mut other, mut wire) = (rig.client().await, rig.client().await);
    assert_eq!(wire.get("/").await.status, 200);
    wire.send(b"GET /socket.io/?EIO=4&sid=abc").await;
    for _ in 0..3 {
        assert_eq!(other.get("/").await.status, 200, "so the half before it has been seen");
    }
    // From here on the clock moves only when nobody has anything to do. One that asked again and again would stop it.
    tokio::time::pause();
    let mut said = Vec::new();
    // It ends in one way or the other.
    wire.stream.read_to_end(&mut said).await.ok();
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    rig.passed_nothing();
}

#[tokio::test]
async fn half_a_line_and_the_end_is_an_end() {
    let mut rig = Rig::new(Settings::default()).await;
    let mut wire = rig.client().await;
    assert_eq!(wire.get("/").await.status, 200);
    wire.send(b"GET /socket.io/?EIO=4&sid=abc").await;
    wire.stream.shutdown().await.expect("shutdown");
    wire.closed().await;
    rig.passed_nothing();
}

#[tokio::test]
async fn a_line_that_is_too_long_is_left_to_the_http_library() {
    let mut rig = Rig::new(Settings::default()).await;
    let mut wire = rig.client().await;
    assert_eq!(wire.get("/").await.status, 200);
    let long = anothers().replacen("EIO=4", &format!("x={}&EIO=4", "x".repeat(9000)), 1);
    wire.send(long.as_bytes()).await;
    is_refused(&mut rig, wire).await;
}

#[tokio::test]
async fn the_first_request_of_a_connection_was_the_master_s_to_decide() {
    let mut rig = Rig::new(Settings::default()).await;
    let mut wire = rig.client().await;
    wire.send(anothers().as_bytes()).await;
    is_refused(&mut rig, wire).await;
}

#[tokio::test]
async fn a_body_is_never_taken_for_a_request() {
    let mut rig = Rig::new(Settings::default()).await;
    let body = anothers();
    let length = format!("content-length: {}", body.len());
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (to_session, header, body, goes_on) in [
        (true, length.as_str(), &body, true),
        (false, length.as_str(), &body, true),
        (true, "transfer-encoding: chunked", &chunked, false),
        (false, "transfer-encoding: chunked", &chunked, false),
    ] {
        for cut in [0, 1, body.len() / 2, body.len() - 1] {
            let mut wire = rig.client().await;
            let sid = open(&mut wire).await;
            let target = if to_session { format!("{POLLING}&sid={sid}") } else { "/".to_owned() };
            wire.send(format!("POST {target} HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n").as_bytes()).await;
            tokio::task::yield_now().await;
            wire.send(&body.as_bytes()[..cut]).await;
            tokio::task::yield_now().await;
            // A server that has answered need not read what it did not wait for.
            let sent = wire.stream.write_all(&body.as_bytes()[cut..]).await;
            let answer = wire.reply().await;
            assert!(answer.status == 400 || answer.status == 405, "{answer:?}");
            rig.passed_nothing();
            if sent.is_err() || answer.header("connection") == Some("close") {
                continue;
            }
            if wire.stream.write_all(anothers().as_bytes()).await.is_err() {
                continue;
            }
            match (to_session, goes_on) {
                (true, true) => goes_back(&mut rig, wire, &anothers()).await,
                (true, false) => is_refused(&mut rig, wire).await,
                // Whether the library reads on where nobody read the body is its own affair.
                (false, _) => rig.passed_nothing(),
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_comes_after_the_answer_is_none_either() {
    let mut rig = Rig::new(Settings::default()).await;
    for encoding in [format!("content-length: {}", anothers().len()), "transfer-encoding: chunked".to_owned()] {
        let mut wire = rig.client().await;
        assert_eq!(wire.get("/").await.status, 200);
        wire.send(format!("POST / HTTP/1.1\r\nhost: x\r\n{encoding}\r\n\r\n").as_bytes()).await;
        assert_eq!(wire.reply().await.status, 405, "without having read the body");
        // The server may have closed already.
        wire.stream.write_all(anothers().as_bytes()).await.ok();
        wire.closed().await;
        rig.passed_nothing();
    }
}

#[tokio::test]
async fn the_rest_of_a_request_that_looks_like_another_is_none() {
    let mut rig = Rig::new(Settings::default()).await;
    let body = anothers();
    let head = format!("POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
    // What comes later begins, after an empty line, like a request of another worker's: the head before it is half read.
    let mut wire = rig.client().await;
    wire.send(format!("GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n{head}").as_bytes()).await;
    assert_eq!(wire.reply().await.status, 404);
    wire.send(format!("\r\n{body}").as_bytes()).await;
    assert_eq!(wire.reply().await.status, 405);
    rig.passed_nothing();
}

#[tokio::test]
async fn a_request_that_was_read_together_with_another_is_refused() {
    let mut rig = Rig::new(Settings::default()).await;
    let get = "GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n";
    for before in [get.to_owned(), format!("POST{}", &get[3..]).replace("\r\n\r\n", "\r\ncontent-length: 2\r\n\r\n40")]
    {
        let mut wire = rig.client().await;
        wire.send(format!("{before}{}", anothers()).as_bytes()).await;
        assert!(wire.reply().await.status >= 400);
        is_refused(&mut rig, wire).await;
    }
    // Half of it was read.
    let mut wire = rig.client().await;
    let anothers = anothers();
    let (half, rest) = anothers.split_at(20);
    wire.send(format!("{get}{half}").as_bytes()).await;
    assert_eq!(wire.reply().await.status, 404);
    wire.send(rest.as_bytes()).await;
    is_refused(&mut rig, wire).await;
}

#[tokio::test]
async fn an_answer_is_written_to_its_end_before_the_connection_goes() {
    let home = tempfile::tempdir().expect("folder");
    let file: Vec<u8> = (0..6_000_000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(home.path().join("big.bin"), &file).expect("write");
    let mut rig = Rig::new(Settings { static_dir: Some(home.path().to_owned()), ..Settings::default() }).await;
    let mut wire = rig.client().await;
    let sid = open(&mut wire).await;
    for _ in 0..2 {
        assert!(wire.get("/big.bin").await.body == file);
    }
    assert_eq!(sid.len(), 33);
    // The next comes while the answer before it is on its way: too early.
    wire.send(b"GET /big.bin HTTP/1.1\r\nhost: x\r\n\r\n").await;
    tokio::task::yield_now().await;
    wire.send(anothers().as_bytes()).await;
    assert!(wire.reply().await.body == file, "to the last byte");
    is_refused(&mut rig, wire).await;
}

#[tokio::test]
async fn what_cannot_go_back_is_refused() {
    let mut rig = Rig::new(Settings::default()).await;
    let passer = rig.passer.clone();
    let rooms: Vec<_> = std::iter::from_fn(|| passer.room()).collect();
    let mut wire = rig.client().await;
    assert_eq!(wire.get("/").await.status, 200);
    wire.send(anothers().as_bytes()).await;
    is_refused(&mut rig, wire).await;
    drop(rooms);
    let mut wire = rig.client().await;
    assert_eq!(wire.get("/").await.status, 200);
    wire.send(anothers().as_bytes()).await;
    goes_back(&mut rig, wire, &anothers()).await;

    let mut wire = rig.client().await;
    assert_eq!(wire.get("/").await.status, 200);
    rig.master.send_drain(60_000).expect("send");
    until("it passes nothing any more", || passer.room().is_none()).await;
    wire.send(anothers().as_bytes()).await;
    is_refused(&mut rig, wire).await;
}

#[tokio::test]
async fn a_unix_connection_stays() {
    let mut rig = Rig::new(Settings::default()).await;
    let (client, connection) = UnixStream::pair().expect("pair");
    hand_over(&mut rig.master, 0, EndAddr::Unix, EndAddr::Unix, connection);
    let mut client = client;
    let said = async {
        client.write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("write");
        let mut said = Vec::new();
        while !said.ends_with(b"this address.\n") {
            client.read_buf(&mut said).await.expect("read");
        }
        client.write_all(anothers().as_bytes()).await.expect("write");
        client.read_to_end(&mut said).await.expect("read");
        said
    };
    let said = soon("an answer and the end", said).await;
    assert!(String::from_utf8_lossy(&said).ends_with(r#"{"code":1,"message":"Session ID unknown"}"#));
    rig.passed_nothing();
}

#[tokio::test]
async fn a_worker_without_tags_looks_at_nothing() {
    let mut rig = Rig::with(Settings::default(), false).await;
    let mut wire = rig.client().await;
    for _ in 0..2 {
        wire.send(anothers().as_bytes()).await;
        let refused = wire.reply().await;
        assert_eq!((refused.status, refused.header("connection")), (400, None), "the engine's own answer");
    }
    rig.passed_nothing();
}

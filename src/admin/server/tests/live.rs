//! Answers without an end, and the page for browsers.

use tokio::io::AsyncReadExt;

use super::*;

/// A request for what only some callers may see.
fn local(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Reads until so many events have come, or the end; yields them.
async fn events(stream: &mut UnixStream, count: usize) -> Vec<String> {
    let (mut text, mut room) = (Vec::new(), [0; 65_536]);
    loop {
        let whole = String::from_utf8_lossy(&text).into_owned();
        let found: Vec<String> = whole
            .lines()
            .filter(|line| line.starts_with("data: ") || line.starts_with("event: "))
            .map(str::to_owned)
            .collect();
        if found.len() >= count {
            return found;
        }
        match reached(stream.read(&mut room)).await.expect("read") {
            0 => return found,
            read => text.extend_from_slice(&room[..read]),
        }
    }
}

async fn listening(server: &Server) -> UnixStream {
    let mut stream = server.connect().await;
    stream.write_all(get("/events").as_bytes()).await.expect("write");
    let first = events(&mut stream, 1).await;
    assert!(first[0].starts_with("data: {") && first[0].contains("\"accepted\":100"), "{first:?}");
    stream
}

#[tokio::test]
async fn the_status_comes_again_and_again_and_longer_than_any_other_answer_may_take() {
    let limits = AdminLimits { connection_time: Duration::from_secs(4), ..AdminLimits::DEFAULT };
    let server = Server::start(limits, master(example::snapshot()));
    let mut stream = listening(&server).await;
    // Two of that time.
    assert_eq!(events(&mut stream, 9).await.len(), 9);
}

#[tokio::test]
async fn the_ninth_stream_takes_the_place_of_the_first_which_is_told_so() {
    let server = Server::usual();
    let mut streams = Vec::new();
    for _ in 0..9 {
        streams.push(listening(&server).await);
    }
    let mut text = String::new();
    reached(streams[0].read_to_string(&mut text)).await.expect("its end");
    assert!(text.contains("event: displaced"), "{text}");
    assert_eq!(events(&mut streams[8], 1).await.len(), 1);
    assert_eq!(server.ask(&get("/healthz")).await.status, 200);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_gives_way_and_keeps_nobody_from_the_pages() {
    let mut huge = example::snapshot();
    huge.listen = vec!["x".repeat(1 << 20)];
    let server = Server::start(AdminLimits { connections: 1, idle: 1, ..AdminLimits::DEFAULT }, master(huge));
    let mut stream = server.connect().await;
    stream.write_all(get("/events").as_bytes()).await.expect("write");
    server.serves_again().await;
    let mut rest = Vec::new();
    // Whatever was under way; then it is closed.
    reached(stream.read_to_end(&mut rest)).await.ok();
}

#[tokio::test]
async fn a_browser_gets_a_page_and_its_parts_under_a_strict_policy() {
    let server = Server::usual();
    let request = "GET / HTTP/1.1\r\nHost: haft\r\nAccept: text/html,application/xhtml+xml,*/*;q=0.8\r\n\r\n";
    let page = server.ask(request).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!(page.header("vary").to_lowercase(), "accept");
    let parts = page.body.split('"').filter(|part| part.starts_with('/') && part.contains('.'));
    let parts: std::collections::BTreeSet<&str> = parts.collect();
    assert!(parts.len() >= 3, "{parts:?}");
    for part in parts {
        let reply = server.ask(&get(part)).await;
        let policy = reply.header("content-security-policy");
        assert!(reply.status == 200 && policy.starts_with("default-src 'none';"), "{part}: {reply:?}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    let head = server.ask("HEAD /events HTTP/1.1\r\nHost: haft\r\n\r\n").await;
    assert_eq!((head.status, head.header("content-type"), head.body.as_str()), (200, "text/event-stream", ""));
}

#[tokio::test]
async fn a_trace_says_each_second_how_many_were_dropped_and_there_are_few_at_once() {
    let server = Server::usual();
    let mut traces = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect().await;
        stream.write_all(local("/trace?slot=1").as_bytes()).await.expect("write");
        let mut text = String::new();
        while !text.contains("{\"dropped\":0}\n") {
            let mut room = [0; 4096];
            let read = reached(stream.read(&mut room)).await.expect("read");
            assert!(read > 0, "{text}");
            text += &String::from_utf8_lossy(&room[..read]);
        }
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("application/x-ndjson"), "{text}");
        traces.push(stream);
    }
    assert_eq!(server.ask(&local("/trace")).await.status, 409);
    assert_eq!(server.ask(&local("/trace?slots=1")).await.status, 400);
    drop(traces);
    reached(async { while server.ask("HEAD /trace HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status != 200 {} }).await;
}

//! One health check: a connection over the loopback, a request, and what the answer shows about the worker.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Enough of an answer for its status.
const MAX_HEAD: usize = 64;
/// The first statuses that say that a worker is not well.
const FIRST_BAD_STATUS: u16 = 500;
/// A check that took so much longer than its limit is inconclusive: haft itself had no CPU.
const ABSENCE: Duration = Duration::from_secs(1);

/// A greeting in TLS (RFC 8446, 4.1.2) that no server can accept, since it names no cipher: one that speaks TLS answers it
/// with an alert.
const CLIENT_HELLO: [u8; 52] = {
    let mut hello = [0; 52];
    let record = [22, 3, 1, 0, 47, 1, 0, 0, 43, 3, 3];
    let mut at = 0;
    while at < record.len() {
        hello[at] = record[at];
        at += 1;
    }
    // 32 bytes that should be random, and an empty session id. Then one suite, which is none (RFC 5746), and no compression.
    let rest = [0, 0, 2, 0, 255, 1, 0];
    let mut from = 0;
    while from < rest.len() {
        hello[43 + from] = rest[from];
        from += 1;
    }
    hello
};

/// The end of a connection for the worker, and the addresses of both: the client's first.
pub(in crate::master) type WorkersEnd = (OwnedFd, SocketAddr, SocketAddr);

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::master) enum Verdict {
    /// The worker has answered.
    Healthy,
    /// It has not, or so.
    Unhealthy(String),
    /// The check itself could not be made.
    Unknown(String),
}

/// What the first bytes of an answer say.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    Status(u16),
    Tls,
    Incomplete,
    Strange,
}

fn head(bytes: &[u8]) -> Head {
    match bytes {
        // An alert, or a handshake.
        [21 | 22, 3, ..] => return Head::Tls,
        [21 | 22] | [] => return Head::Incomplete,
        _ => {}
    }
    let start = b"HTTP/1.";
    if !bytes.iter().zip(start).all(|(it, wanted)| it == wanted) {
        return Head::Strange;
    }
    let Some(status) = bytes.get(start.len() + 2..start.len() + 5) else { return Head::Incomplete };
    match std::str::from_utf8(status).ok().and_then(|text| text.parse().ok()) {
        Some(status) if bytes[start.len() + 1] == b' ' => Head::Status(status),
        _ => Head::Strange,
    }
}

/// Both ends of a connection over the loopback: ours, and the worker's.
async fn pair() -> io::Result<(TcpStream, WorkersEnd)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    let (client, local) = (ours.local_addr()?, ours.peer_addr()?);
    loop {
        let (theirs, from) = listener.accept().await?;
        // Another process of this host may have been quicker.
        if from == client {
            return Ok((ours, (theirs.into_std()?.into(), client, local)));
        }
    }
}

/// What the worker answers to these bytes: as much as its status needs, or nothing where it only closes.
async fn ask(what: &[u8], hand_over: &impl Fn(WorkersEnd)) -> io::Result<Vec<u8>> {
    let (mut stream, theirs) = pair().await?;
    hand_over(theirs);
    let mut answer = Vec::new();
    if stream.write_all(what).await.is_err() {
        return Ok(answer);
    }
    let mut bytes = [0; MAX_HEAD];
    while head(&answer) == Head::Incomplete {
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&bytes[..count]),
        }
    }
    Ok(answer)
}

/// Asks a worker for a path, within this time. `hand_over` gives it the connection.
pub(super) async fn check(path: &str, timeout: Duration, hand_over: impl Fn(WorkersEnd)) -> Verdict {
    let begun = Instant::now();
    let version = env!("CARGO_PKG_VERSION");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: haft/{version} (health check)\r\nConnection: close\r\n\r\n"
    );
    let both = async {
        let answer = ask(request.as_bytes(), &hand_over).await?;
        // A server that speaks TLS may close without a word where it is asked in the clear.
        if answer.is_empty() { ask(&CLIENT_HELLO, &hand_over).await } else { Ok(answer) }
    };
    let outcome = tokio::time::timeout(timeout, both).await;
    match outcome {
        Ok(Err(error)) => Verdict::Unknown(error.to_string()),
        Ok(Ok(answer)) => judge(&answer),
        Err(_) if begun.elapsed() > timeout + ABSENCE => Verdict::Unknown("haft was kept from looking".to_owned()),
        Err(_) => Verdict::Unhealthy(format!("no answer within {}", humantime::format_duration(timeout))),
    }
}

fn judge(answer: &[u8]) -> Verdict {
    match head(answer) {
        Head::Status(status) if status < FIRST_BAD_STATUS => Verdict::Healthy,
        Head::Tls => Verdict::Healthy,
        Head::Status(status) => Verdict::Unhealthy(format!("status {status}")),
        Head::Incomplete => Verdict::Unhealthy("it closed the connection without an answer".to_owned()),
        Head::Strange => Verdict::Unhealthy("its answer is not HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_below_500_is_an_answer_and_so_is_any_word_in_tls() {
        for healthy in [&b"HTTP/1.1 200 OK"[..], b"HTTP/1.0 404", b"HTTP/1.1 499 x", &[21, 3, 1, 0], &[22, 3, 3]] {
            assert_eq!(judge(healthy), Verdict::Healthy, "{healthy:?}");
        }
        for (answer, why) in [
            (&b"HTTP/1.1 500 x"[..], "status 500"),
            (b"HTTP/1.1 503", "status 503"),
            (b"", "it closed the connection without an answer"),
            (b"HTTP/1.1 20", "it closed the connection without an answer"),
            (b"HTTP/2 200", "its answer is not HTTP"),
            (b"HTTP/1.1x200", "its answer is not HTTP"),
            (b"HTTP/1.1 xyz", "its answer is not HTTP"),
            (b"SSH-2.0", "its answer is not HTTP"),
        ] {
            assert_eq!(judge(answer), Verdict::Unhealthy(why.to_owned()), "{answer:?}");
        }
    }

    #[test]
    fn the_greeting_is_as_long_as_it_says() {
        let [_, _, _, high, low, _, _, _, inner, ..] = CLIENT_HELLO;
        assert_eq!(usize::from(high) * 256 + usize::from(low), CLIENT_HELLO.len() - 5);
        assert_eq!(usize::from(inner), CLIENT_HELLO.len() - 9);
    }

    /// Serves the worker's ends: with the answer, or by closing, or not at all.
    async fn against(answers: &'static [Option<&'static str>]) -> Verdict {
        let ends = std::cell::RefCell::new(Vec::new());
        let given = std::cell::Cell::new(0);
        check("/x", Duration::from_millis(500), |(end, client, _)| {
            use std::io::Write;
            let mut stream = std::net::TcpStream::from(end);
            assert_eq!(stream.peer_addr().expect("an address"), client);
            match answers.get(given.replace(given.get() + 1)).copied().flatten() {
                Some("") => drop(stream),
                Some(answer) => {
                    stream.write_all(answer.as_bytes()).expect("room");
                    ends.borrow_mut().push(stream);
                }
                None => ends.borrow_mut().push(stream),
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_worker_is_asked_over_a_connection_of_its_own() {
        assert_eq!(against(&[Some("HTTP/1.1 204 No Content\r\n\r\n")]).await, Verdict::Healthy);
        assert_eq!(against(&[Some(""), Some("\u{15}\u{3}\u{1}")]).await, Verdict::Healthy, "by TLS");
        assert_eq!(against(&[Some("HTTP/1.1 500 x")]).await, Verdict::Unhealthy("status 500".to_owned()));
        let closed = Verdict::Unhealthy("it closed the connection without an answer".to_owned());
        assert_eq!(against(&[Some(""), Some("")]).await, closed);
        assert_eq!(against(&[None]).await, Verdict::Unhealthy("no answer within 500ms".to_owned()));
    }
}

//! A whole session of Socket.IO: handshake by polling, upgrade to a WebSocket, one message with its answer, the end. Its two
//! connections come from one address, and a balancer has to bring both to the same worker.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Outcome;
use crate::client::{Home, Target, WebSocket};

const HANDSHAKE: &str = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";

/// The time that it takes, or what went wrong: with a worker that does not know the session, 400.
pub async fn session(target: &Target) -> Outcome<Duration> {
    let begun = Instant::now();
    let home = Home::next();
    let mut stream = home.connect(target).await?;
    stream.write_all(HANDSHAKE.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    while stream.read_buf(&mut answer).await? > 0 {}
    let answer = String::from_utf8(answer)?;
    let between = |before: &str, after: &str| Some(answer.split_once(before)?.1.split_once(after)?.0);
    let id = between("\"sid\":\"", "\"").ok_or_else(|| format!("no session: {answer:?}"))?;
    // A balancer that goes by a cookie has to see it again.
    let cookie = answer.lines().filter(|line| line.len() > 12 && line[..12].eq_ignore_ascii_case("set-cookie: "));
    let cookie: Vec<_> = cookie.filter_map(|line| line[12..].split(';').next()).collect();
    let more = if cookie.is_empty() { String::new() } else { format!("Cookie: {}\r\n", cookie.join("; ")) };
    let mut socket = WebSocket::upgrade(home.connect(target).await?, &format!("&sid={id}"), &more).await?;
    // Engine.IO 4: the probe, then the switch; only then comes Socket.IO's own handshake.
    socket.send(b"2probe").await?;
    while socket.receive().await? != b"3probe" {}
    socket.send(b"5").await?;
    socket.begin().await?;
    socket.echo().await?;
    socket.send(b"41").await?;
    Ok(begun.elapsed())
}

//! The smallest worker: the same program for every contender that can run it.
//!
//! It speaks what the load generator asks for, like the Socket.IO programs do: a page that tells who serves it, over a
//! connection that then closes; and a WebSocket that says hello to `40` and answers each other message with itself.

use std::io;
use std::net::SocketAddr;

use haft_worker::Incoming;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task;
use tungstenite::handshake::derive_accept_key;

use crate::Outcome;

/// Connections that may wait in the kernel's queue: as many as haft asks for.
const BACKLOG: i32 = 4096;
/// No request head and no message of the load generator is longer, also with what a proxy adds.
const LONGEST: usize = 2048;

/// Where its connections come from.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// The master of haft that started it.
    Haft,
    /// A listener of its own, which other processes may share (SO_REUSEPORT).
    Own(SocketAddr),
}

/// Is the worker until it is ended.
pub fn work(source: Source) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    task::LocalSet::new().block_on(&runtime, async {
        match source {
            Source::Haft => {
                let mut incoming = Incoming::from_env()?;
                while let Some(connection) = incoming.next().await? {
                    task::spawn_local(serve(connection.stream));
                }
            }
            Source::Own(address) => {
                let listener = listen(address)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    task::spawn_local(serve(stream));
                }
            }
        }
        Ok(())
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// One client, from its first byte to its end. A client that goes away in between is nobody's fault.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = Vec::with_capacity(LONGEST);
    let head = loop {
        if let Some(end) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
            break end + 4;
        }
        if buffer.len() > LONGEST || !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    };
    match key(&buffer[..head]) {
        None => drop(page(&mut stream).await),
        Some(key) => {
            buffer.drain(..head);
            drop(socket(&mut stream, &key, buffer).await);
        }
    }
}

/// The key of a request for a WebSocket. Proxies write names of header fields in their own way.
fn key(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut keys = fields.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    keys.next().map(|(_, value)| value.trim().to_owned())
}

async fn page(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let body = format!(r#"{{"worker":{{"pid":{}}}}}"#, std::process::id());
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await
}

async fn socket(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), key: &str, mut input: Vec<u8>) -> io::Result<()> {
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut output = Vec::with_capacity(LONGEST);
    loop {
        while let Some((message, end)) = message(&input) {
            match message.as_slice() {
                b"40" => text(&mut output, format!(r#"42["hello",{{"pid":{}}}]"#, std::process::id()).as_bytes()),
                other => text(&mut output, other),
            }
            input.drain(..end);
        }
        stream.write_all(&output).await?;
        output.clear();
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

/// The first message of a client (RFC 6455, 5.2: masked, here always shorter than 126 bytes) and where it ends.
fn message(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let length = usize::from(*input.get(1)? & 0x7f);
    let mask = input.get(2..6)?;
    let payload = input.get(6..6 + length)?;
    Some((payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect(), 6 + length))
}

/// Appends a message of a server: unmasked, shorter than 126 bytes.
fn text(output: &mut Vec<u8>, payload: &[u8]) {
    output.extend([0x81, payload.len() as u8 & 0x7f]);
    output.extend(payload);
}

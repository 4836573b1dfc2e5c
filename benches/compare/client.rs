//! One client: a connection from a loopback address of its own, with one request or as a WebSocket.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::Outcome;

/// Nobody is waited for longer than this.
pub const PATIENCE: Duration = Duration::from_secs(20);

const GET: &[u8] = b"GET /haft/page.json HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
/// Of a request for a WebSocket, what comes after its target.
const UPGRADE: &str = "HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// To leave a room in which one is not: Socket.IO's smallest request with an answer.
const ASK: &[u8] = br#"420["leave",{"room":"bench"}]"#;

/// Where the clients connect: usually one address; several where the clients choose the server.
#[derive(Debug, Clone)]
pub struct Target(pub Vec<SocketAddr>);

/// An address in 127.0.0.0/8 and the number of the client that has it. Each is used once; all three bytes that can change
/// do so from one to the next, since some balancers look at the first three bytes and some at the last one.
#[derive(Debug, Clone, Copy)]
pub struct Home {
    address: Ipv4Addr,
    number: usize,
}

impl Home {
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A step that shares no factor with the number of addresses, 250 cubed: none comes twice before all have come.
        let place = number * 2_654_435_761 % 15_625_000;
        let byte = |divisor| (1 + place / divisor % 250) as u8;
        Self { address: Ipv4Addr::new(127, byte(62_500), byte(250), byte(1)), number: number as usize }
    }

    /// A socket that is bound to this address, and where it shall connect.
    fn socket(self, target: &Target) -> Outcome<(Socket, SocketAddr)> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // The port is chosen at connect, when the other end is known: ports of one address can then be used again.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((self.address, 0)).into())?;
        socket.set_tcp_nodelay(true)?;
        Ok((socket, target.0[self.number % target.0.len()]))
    }

    /// A connection from there.
    pub async fn connect(self, target: &Target) -> Outcome<tokio::net::TcpStream> {
        let (socket, to) = self.socket(target)?;
        socket.set_nonblocking(true)?;
        Ok(TcpSocket::from_std_stream(socket.into()).connect(to).await?)
    }
}

/// The time from the call of connect to the first byte of the answer, of a request over a connection of its own. The
/// server closes first.
pub async fn ask(target: &Target) -> Outcome<Duration> {
    let mut answer = [0; 1024];
    let begun = Instant::now();
    let mut stream = Home::next().connect(target).await?;
    stream.write_all(GET).await?;
    let length = stream.read(&mut answer).await?;
    let first_byte = begun.elapsed();
    judge(&answer[..length])?;
    while stream.read(&mut answer).await? > 0 {}
    Ok(first_byte)
}

/// The same with calls that block: without the cost of an event loop, for one client at a time.
pub fn ask_blocking(target: &Target) -> Outcome<Duration> {
    let begun = Instant::now();
    let mut stream = begin_blocking(target)?;
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer)?;
    let first_byte = begun.elapsed();
    judge(&answer[..length])?;
    while stream.read(&mut answer)? > 0 {}
    Ok(first_byte)
}

/// A connection on which the request is on its way.
pub fn begin_blocking(target: &Target) -> Outcome<TcpStream> {
    let (socket, to) = Home::next().socket(target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // A connect that finds a full queue would be repeated by the kernel for minutes.
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&to.into())?;
    let mut stream: TcpStream = socket.into();
    stream.write_all(GET)?;
    Ok(stream)
}

/// Reads the answer to its end.
pub fn finish_blocking(mut stream: TcpStream) -> Outcome<()> {
    let mut answer = Vec::with_capacity(1024);
    stream.read_to_end(&mut answer)?;
    judge(&answer)
}

fn judge(answer: &[u8]) -> Outcome<()> {
    if answer.starts_with(b"HTTP/1.1 200") {
        return Ok(());
    }
    Err(format!("unexpected answer: {:?}", String::from_utf8_lossy(answer)).into())
}

/// An established WebSocket of Socket.IO.
#[derive(Debug)]
pub struct WebSocket {
    stream: tokio::net::TcpStream,
    input: Vec<u8>,
    /// The process that serves it.
    pub worker: i32,
}

impl WebSocket {
    /// Opens one, as far as to the worker's hello.
    pub async fn open(target: &Target) -> Outcome<Self> {
        let mut socket = Self::upgrade(Home::next().connect(target).await?, "", "").await?;
        socket.begin().await?;
        Ok(socket)
    }

    /// Makes a WebSocket of a connection: `query` is added to its target, `fields` to its header.
    pub async fn upgrade(mut stream: tokio::net::TcpStream, query: &str, fields: &str) -> Outcome<Self> {
        // When it is closed it shall be gone: nothing of it is to wait for a minute.
        stream.set_zero_linger()?;
        let head = format!("GET /socket.io/?EIO=4&transport=websocket{query} {UPGRADE}{fields}\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut input = Vec::with_capacity(512);
        let head = loop {
            if let Some(end) = memchr::memmem::find(&input, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Err(format!("no WebSocket: {:?}", String::from_utf8_lossy(&input)).into());
            }
        };
        if !input.starts_with(b"HTTP/1.1 101") {
            return Err(format!("no WebSocket: {:?}", String::from_utf8_lossy(&input)).into());
        }
        input.drain(..head);
        Ok(Self { stream, input, worker: 0 })
    }

    /// Joins the main namespace, as far as to the worker's hello.
    pub async fn begin(&mut self) -> Outcome<()> {
        self.send(b"40").await?;
        while self.worker == 0 {
            let received = self.receive().await?;
            if received.starts_with(br#"42["hello""#) {
                self.worker = pid(&received).ok_or("a hello without a pid")?;
            }
        }
        Ok(())
    }

    /// Asks, and waits for the answer.
    pub async fn echo(&mut self) -> Outcome<()> {
        self.send(ASK).await?;
        // Engine.IO asks whether one is alive from time to time; that is not the answer.
        while self.receive().await? == b"2" {}
        Ok(())
    }

    pub async fn send(&mut self, payload: &[u8]) -> Outcome<()> {
        // Masked by zeros, which is allowed: the payload is then as it is.
        let mut frame = vec![0x81, 0x80 | (payload.len() as u8 & 0x7f), 0, 0, 0, 0];
        frame.extend(payload);
        Ok(self.stream.write_all(&frame).await?)
    }

    /// The next message of the server.
    pub async fn receive(&mut self) -> Outcome<Vec<u8>> {
        loop {
            if let Some((start, end)) = frame(&self.input) {
                let message = self.input[start..end].to_vec();
                self.input.drain(..end);
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err("a WebSocket was closed by the server".into());
            }
        }
    }

    /// Takes it out of this thread's runtime.
    pub fn hold(self) -> Outcome<Held> {
        Ok(Held { stream: self.stream.into_std()?, input: self.input, worker: self.worker })
    }
}

/// An established WebSocket outside a runtime.
#[derive(Debug)]
pub struct Held {
    stream: TcpStream,
    input: Vec<u8>,
    worker: i32,
}

impl Held {
    /// Takes it into this thread's runtime.
    pub fn resume(self) -> Outcome<WebSocket> {
        let stream = tokio::net::TcpStream::from_std(self.stream)?;
        Ok(WebSocket { stream, input: self.input, worker: self.worker })
    }

    /// Whether the server has not closed it.
    pub fn is_open(&self) -> bool {
        match self.stream.peek(&mut [0]) {
            Ok(length) => length > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Where the payload of the first frame is (RFC 6455, 5.2: unmasked, at most 65,535 bytes), if all of it is there.
fn frame(input: &[u8]) -> Option<(usize, usize)> {
    let (start, length) = match *input.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?]))),
        length => (2, usize::from(length)),
    };
    (input.len() >= start + length).then_some((start, start + length))
}

/// The number after `"pid":`.
fn pid(text: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, after) = text.split_once(r#""pid":"#)?;
    after.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

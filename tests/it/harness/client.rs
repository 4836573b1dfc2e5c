//! A client: a connection from an address of its choice, HTTP requests, answers.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use haft::route::Prefix;
use haft::route::{Key, Table};
use haft_sys::addr::EndAddr;
use socket2::{Domain, Socket, Type};

use super::{DEADLINE, Haft};

/// The slot that a client's address belongs to, by the library's own routing.
pub fn slot_of(client: impl Into<IpAddr>, slots: usize) -> usize {
    let client = EndAddr::from_ip((client.into(), 0).into());
    let key = Key::of_client(&client, Prefix::default());
    Table::new(slots).expect("slots").choose(key).index()
}

/// All slots in the order in which a client's address would try them, by the library's own routing.
pub fn order_of(client: impl Into<IpAddr>, slots: usize) -> Vec<usize> {
    let client = EndAddr::from_ip((client.into(), 0).into());
    let key = Key::of_client(&client, Prefix::default());
    Table::new(slots).expect("slots").order(key).map(|slot| slot.index()).collect()
}

/// Addresses of this host that belong to a slot.
pub fn addresses_of(slot: usize, slots: usize) -> impl Iterator<Item = Ipv4Addr> {
    // 127.0.1.1 and on.
    let addresses = (0..).map(|n: u32| Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 1, 1).to_bits() + n));
    addresses.filter(move |address| slot_of(*address, slots) == slot)
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A connection that asks `examples/worker.py` for its identity.
pub struct Client {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    /// Whether a reset was noticed in sending: the kernel reports it once.
    reset: bool,
}

/// The worker's answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub slot: usize,
    pub worker: u64,
    pub pid: u32,
    pub client: String,
    pub listener: usize,
    pub request: String,
}

impl Client {
    /// Connects from any address.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        Self::over_tcp(TcpStream::connect(to)?)
    }

    /// Connects from this address, which must be of the same family.
    pub fn connect_from(from: impl Into<IpAddr>, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from.into(), 0).into())?;
        socket.connect(&to.into())?;
        Self::over_tcp(socket.into())
    }

    /// Connects from this address to haft's only listener and asks.
    pub fn asking(haft: &Haft, from: impl Into<IpAddr>) -> Self {
        let mut client = Self::connect_from(from, haft.address()).expect("connect");
        // One that is refused may know it already.
        client.send("/").ok();
        client
    }

    /// Connects from this address and sends half a request, which keeps its worker from finishing.
    pub fn half_asking(haft: &Haft, from: impl Into<IpAddr>) -> Self {
        let mut client = Self::connect_from(from, haft.address()).expect("connect");
        client.write(b"GET /slow HTTP/1.1\r\n").expect("half a request");
        client
    }

    /// Sends the other half, waits for the answer and then for the end of the connection, which must be an orderly one.
    pub fn finish(mut self) -> Answer {
        self.write(b"\r\n").expect("the other half");
        let answer = self.receive().expect("its answer");
        self.wait_for_end().expect("an orderly end");
        answer
    }

    /// Connects to a Unix listener.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self { stream: Box::new(stream), received: Vec::new(), reset: false })
    }

    fn over_tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Box::new(stream), received: Vec::new(), reset: false })
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.stream.write_all(bytes);
        self.reset |= written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
        written
    }

    /// Sends a request and keeps the connection.
    pub fn send(&mut self, path: &str) -> io::Result<()> {
        self.write(format!("GET {path} HTTP/1.1\r\nHost: haft\r\n\r\n").as_bytes())
    }

    /// Waits for an answer.
    pub fn receive(&mut self) -> io::Result<Answer> {
        let body = self.receive_body()?;
        let fields: BTreeMap<&str, &str> = body.lines().filter_map(|line| line.split_once(": ")).collect();
        let number = |name| fields[name].parse().expect("a number");
        Ok(Answer {
            slot: number("slot") as usize,
            worker: number("worker"),
            pid: number("pid") as u32,
            client: fields["client"].to_owned(),
            listener: number("listener") as usize,
            request: fields["request"].to_owned(),
        })
    }

    /// Waits for an answer and yields its body.
    pub fn receive_body(&mut self) -> io::Result<String> {
        loop {
            if let Some((body, len)) = whole_answer(&self.received) {
                self.received.drain(..len);
                return Ok(body);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.received.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, path: &str) -> io::Result<Answer> {
        self.send(path)?;
        self.receive()
    }

    /// Waits until the other end closes the connection: an error if it was reset.
    pub fn wait_for_end(&mut self) -> io::Result<()> {
        self.stream.read_to_end(&mut Vec::new()).map(|_| ())
    }

    /// Waits for an answer and the end of the connection, and yields all that came.
    pub fn receive_all(&mut self) -> io::Result<String> {
        self.stream.read_to_end(&mut self.received)?;
        Ok(String::from_utf8_lossy(&std::mem::take(&mut self.received)).into_owned())
    }

    /// Waits until the other end resets the connection.
    pub fn wait_for_reset(&mut self) {
        if !self.reset {
            let error = self.wait_for_end().expect_err("a reset");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
        }
    }
}

/// The body of the answer at the front, and how long the answer is in all.
fn whole_answer(bytes: &[u8]) -> Option<(String, usize)> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let end = head + length.parse::<usize>().expect("a length");
    (bytes.len() >= end).then(|| (String::from_utf8_lossy(&bytes[head..end]).into_owned(), end))
}

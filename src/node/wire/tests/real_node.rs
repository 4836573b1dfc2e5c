//! A session with a real Node at the other end: what is written is understood, and each connection gets there.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::body_of;
use crate::handover::outbox::Outbox;
use crate::ids::WorkerId;
use crate::node::preload::Preload;
use crate::node::wire::PreloadMessage;
use crate::node::wire::{
    ConnectionMessage, Decision, Delivery, Handle, IpcEffect, IpcReader, MAX_FRAME, Own, Piece, Serialization, Servers,
    Session, Sockname,
};
use crate::sys::scm::{self, Sent};

/// Answers each connection with its client's port, by whichever way it came, and leaves when it is asked to.
const PROGRAM: &str = r#"
const net = require('net');
let messages = 0;
process.on('message', (message, socket) => {
  if (socket) socket.end(`message ${message.type} ${socket.remoteAddress} ${socket.remotePort}`); else messages += 1;
});
const server = net.createServer((socket) => {
  socket.end(`server ${server.address().address} ${socket.remoteAddress} ${socket.remotePort}`);
});
server.listen(3000, () => {
  // Its own port is taken already, by itself.
  net.createServer().on('error', (error) => process.send({ error: error.code })).listen(3000);
});
process.on('disconnect', () => console.log(`messages ${messages}`));
"#;

const WORKER: WorkerId = WorkerId(1);

/// A worker, and our end of its channel.
struct Worker {
    process: Child,
    channel: UnixStream,
    session: Session,
    reader: IpcReader,
    servers: Servers,
    outbox: Outbox<OwnedFd>,
    /// Descriptors that went out alone, with the last byte of their message.
    alone: usize,
    listening: bool,
    refused: bool,
    idle: bool,
    closed: usize,
    /// The preload, which shows the program the stated addresses.
    _preload: Preload,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Worker {
    fn start(serialization: Serialization, program: &std::path::Path) -> Self {
        let (channel, theirs) = UnixStream::pair().expect("pair");
        channel.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
        let preload = Preload::write().expect("preload");
        let process = Command::new("node")
            .arg(program)
            .env("NODE_CHANNEL_FD", "0")
            .env("NODE_UNIQUE_ID", WORKER.0.to_string())
            .env("NODE_CHANNEL_SERIALIZATION_MODE", serialization.name())
            .env("NODE_OPTIONS", preload.node_options(None))
            .env("HAFT_SLOT", "0")
            .env("HAFT_WORKER", WORKER.0.to_string())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need Node.js: `node` on the PATH");
        let message = crate::config::NodeStyle::SocketIoSticky.message().expect("a message style");
        let message = ConnectionMessage::from_json(message).expect("JSON");
        let stated = Sockname::Ip("127.0.0.9:4000".parse().expect("address"));
        Self {
            process,
            channel,
            session: Session::new(serialization, message.frame(serialization).into()),
            reader: IpcReader::new(serialization, MAX_FRAME),
            // As with `--listen`: the program gets another address than it asked for, but no other port.
            servers: Servers::new(Own::new([(stated, None)]).0, "/".into()),
            outbox: Outbox::new(),
            alone: 0,
            listening: false,
            refused: false,
            idle: false,
            closed: 0,
            _preload: preload,
        }
    }

    /// Reads once and takes it in; `false` at the end of the channel.
    fn receive(&mut self) -> bool {
        let mut piece = vec![0; 64 << 10];
        let len = self.channel.read(&mut piece).expect("the worker writes something in time");
        let mut frames = self.reader.take_in(&piece[..len]);
        while let Some(piece) = frames.next().expect("frames") {
            let Piece::Frame(frame) = piece else { panic!("{piece:?}") };
            match self.session.receive(&frame).expect("a well-behaved worker") {
                IpcEffect::Ask(query) => match self.servers.ask(WORKER, &query) {
                    Decision::Join(server) => {
                        let answer = self.servers.answer(server).expect("joined");
                        self.session.answer(query.seq, server, &answer);
                    }
                    Decision::Refuse(refusal) => self.session.refuse(query.seq, &refusal),
                    Decision::Open(spec) | Decision::Displace(_, spec) => panic!("{spec:?}"),
                },
                IpcEffect::Listening(_) => self.listening = true,
                IpcEffect::Taken { connection } => drop(self.outbox.settle(connection).expect("in flight")),
                IpcEffect::Closed { key } => {
                    self.closed += usize::from(self.servers.closed(WORKER, &key).is_some());
                }
                IpcEffect::Message => self.refused = true,
                IpcEffect::Preload(PreloadMessage::Idle) => self.idle = true,
                IpcEffect::Online | IpcEffect::Nothing | IpcEffect::Pong | IpcEffect::LaneWanted => {}
                other => panic!("{other:?}"),
            }
        }
        self.flush();
        len > 0
    }

    /// Pings the program, and waits for its answer.
    fn ping(&mut self) {
        self.session.ping();
        self.flush();
        while self.session.is_pinging() {
            assert!(self.receive(), "the program ended after a ping");
        }
    }

    fn flush(&mut self) {
        while let Some((bytes, handle)) = self.session.next() {
            let descriptor = handle.map(|handle| match handle {
                Handle::Connection(number) => self.outbox.get(number).expect("in flight").as_fd(),
                Handle::Server { .. } | Handle::Lane | Handle::Rooms => panic!("only connections are sent"),
            });
            self.alone += usize::from(descriptor.is_some() && bytes.len() == 1);
            match scm::send(self.channel.as_fd(), bytes, descriptor.into_iter()).expect("send") {
                Sent::Bytes(taken) => self.session.sent(taken).expect("whole"),
                // Node reads on by itself; it answers once it has a descriptor.
                Sent::Full => std::thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn talk(serialization: Serialization) {
    let folder = tempfile::tempdir().expect("folder");
    let program = folder.path().join("program.js");
    std::fs::write(&program, PROGRAM).expect("program");
    let mut worker = Worker::start(serialization, &program);
    while !(worker.listening && worker.refused) {
        assert!(worker.receive(), "the program ended before it listened");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let own = listener.local_addr().expect("address");
    let mut clients: Vec<(TcpStream, String)> = Vec::new();
    let mut broadcasts = 0;
    for at in 0..150usize {
        let client = TcpStream::connect(own).expect("connect");
        // A proxy stated another address for some.
        let stated = (at % 4 == 1).then(|| SocketAddr::from(([203, 0, 113, 9], at as u16)));
        let seen = stated.unwrap_or(client.local_addr().expect("address"));
        let seen = format!("{} {}", seen.ip(), seen.port());
        let (connection, _) = listener.accept().expect("accept");
        connection.set_nonblocking(true).expect("non-blocking");
        let (key, by_message) = (worker.servers.key(crate::node::wire::ServerId::OWN), at % 3 == 0);
        let delivery = if by_message { Delivery::Message } else { Delivery::Server { key: key.expect("key") } };
        worker.session.connection(delivery, stated);
        worker.outbox.raise_limit(u64::MAX).expect("limit");
        worker.outbox.push(connection.into());
        let expected =
            if by_message { format!("message sticky:connection {seen}") } else { format!("server 127.0.0.9 {seen}") };
        clients.push((client, expected));
        // Broadcasts of 10 B to 130 kB between some of them.
        if at % 2 == 0 {
            let text = "x".repeat(10 + at * 7919 % 130_000);
            let body = body_of(serialization, &format!("{{\"text\":\"{text}\"}}"));
            assert!(worker.session.forward(&super::framed(serialization, &body)));
            broadcasts += 1;
        }
        worker.flush();
        if at % 30 == 29 {
            worker.ping();
        }
    }
    while worker.outbox.in_flight() > 0 {
        assert!(worker.receive(), "the program ended");
    }
    assert!(worker.alone > 10, "{} descriptors went alone", worker.alone);
    for (mut client, expected) in clients {
        client.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, expected);
    }
    // There is no Engine.IO, so no session either.
    worker.session.linger(Duration::from_secs(9));
    worker.flush();
    while !worker.idle {
        assert!(worker.receive(), "the program ended");
    }
    worker.session.disconnect(Duration::from_secs(9), None);
    worker.flush();
    while worker.receive() {}
    assert_eq!(worker.closed, 1, "the server was closed on the way out");
    let status = worker.process.wait().expect("exit");
    assert_eq!(status.code(), Some(0));
    let mut printed = String::new();
    worker.process.stdout.take().expect("stdout").read_to_string(&mut printed).expect("output");
    assert_eq!(printed, format!("messages {broadcasts}\n"));
}

#[test]
fn in_lines_of_json() {
    talk(Serialization::Json);
}

#[test]
fn in_v8_s_own_format() {
    talk(Serialization::Advanced);
}

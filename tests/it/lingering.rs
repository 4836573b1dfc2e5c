//! Workers as processes, with the test as their master: they tag their sessions, linger for them, refuse what is
//! another worker's, and end.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use haft::route::{Slot, Tag, TagKey, Tagger};
use haft_sys::addr::EndAddr;
use haft_worker::protocol::{Entry, FromWorker, MasterEnd};
use serde_json::json;

use crate::harness::{Client, eventually};
use crate::library::example;

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const OWN: Tag = Tag { slot: Slot(1), generation: 4 };
const OTHER: Tag = Tag { slot: Slot(0), generation: 4 };

/// A worker, its channel, and a listener whose connections it is given.
struct Master {
    end: MasterEnd,
    worker: Child,
    listener: TcpListener,
    tagger: Tagger,
    handed_over: u64,
}

impl Master {
    /// Starts a program as a worker. The channel is its stdin first, so that no other test's child inherits it.
    fn of(program: &Path, environment: &[(&str, String)]) -> Self {
        let key = TagKey::of_text("a key for tests");
        let (end, channel) = MasterEnd::pair().expect("pair");
        let worker = Command::new("sh")
            .args(["-c", "exec 3<&0 </dev/null; exec \"$0\""])
            .arg(program)
            .env("HAFT_CHANNEL_FD", "3")
            .env("HAFT_TAG_KEY", key.to_hex())
            .env("HAFT_SLOT", OWN.slot.0.to_string())
            .env("HAFT_DRAIN_TIMEOUT", "60000")
            .env("HAFT_GENERATION", OWN.generation.to_string())
            .envs(environment.iter().map(|(name, value)| (name, value.as_str())))
            .stdin(Stdio::from(channel))
            .spawn()
            .expect("spawn");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let mut master = Self { end, worker, listener, tagger: Tagger::new(&key), handed_over: 0 };
        assert!(matches!(master.receive(), FromWorker::Ready { tags: true, .. }));
        master
    }

    /// The worker's next frame but for TAKEN.
    fn receive(&mut self) -> FromWorker {
        eventually("the worker speaks", || {
            let frame = self.end.receive().expect("receive")?;
            (!matches!(frame, FromWorker::Taken { .. })).then_some(frame)
        })
    }

    /// A client whose connection the worker was given.
    fn client(&mut self) -> Client {
        let local = self.listener.local_addr().expect("address");
        let client = Client::connect(local).expect("connect");
        let (connection, from) = self.listener.accept().expect("accept");
        connection.set_nonblocking(true).expect("non-blocking");
        let (client_addr, local) = (EndAddr::Ip(from), EndAddr::Ip(local));
        let entry = Entry { sequence: self.handed_over, listener: 0, client: client_addr, local };
        self.end.send_connections([entry].into_iter(), [connection.as_fd()].into_iter()).expect("send");
        self.handed_over += 1;
        client
    }

    /// Opens a session that has joined the namespace `/`, on a connection of its own.
    fn session(&mut self) -> (Client, String) {
        let mut client = self.client();
        client.send(POLLING).expect("send");
        let open = client.receive_body().expect("an answer");
        let open: serde_json::Value = serde_json::from_str(&open[1..]).expect("an open packet");
        let sid = open["sid"].as_str().expect("sid").to_owned();
        assert!(self.tagger.read(sid.as_bytes()).is_some_and(|(base, tag)| base.len() == 16 && tag == OWN), "{sid}");
        assert_eq!(post(&mut client, &sid, "40"), "ok");
        client.send(&format!("{POLLING}&sid={sid}")).expect("send");
        assert!(client.receive_body().expect("an answer").contains("40{"));
        (client, sid)
    }

    /// A session lives through its worker's lingering, and the worker ends when it has ended.
    fn see_it_out(mut self) {
        let (kept, sid) = self.session();
        self.end.send_linger(600_000).expect("send");
        for number in 0..3 {
            let mut client = self.client();
            assert_eq!(post(&mut client, &sid, &format!("42{number}[\"echo\",{number}]")), "ok");
            let mut received = String::new();
            while !received.contains(&format!("43{number}[{number}]")) {
                client.send(&format!("{POLLING}&sid={sid}")).expect("send");
                received += &client.receive_body().expect("an answer");
            }
        }
        let mut last = self.client();
        assert_eq!(post(&mut last, &sid, "1"), "ok");
        assert_eq!(self.receive(), FromWorker::Idle);
        drop((kept, last));
        self.end.send_drain(60_000).expect("send");
        let status = eventually("the worker ends", || self.worker.try_wait().expect("wait"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.worker.kill().ok();
        self.worker.wait().ok();
    }
}

fn post(client: &mut Client, sid: &str, packets: &str) -> String {
    client.write(posted(sid, packets).as_bytes()).expect("send");
    client.receive_body().expect("an answer")
}

/// The whole answer, and then the end of the connection.
fn post_whole(client: &mut Client, sid: &str, packets: &str) -> String {
    client.write(posted(sid, packets).as_bytes()).expect("send");
    client.receive_all().expect("an answer and the end")
}

fn posted(sid: &str, packets: &str) -> String {
    let length = packets.len();
    format!("POST {POLLING}&sid={sid} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{packets}")
}

/// A built-in worker. It is told in its environment what the master was told by its flags.
fn builtin() -> Master {
    let orders = json!({
        "engine": haft::config::EngineConfig::default(),
        "log_level": "info",
        "log_json": false,
    });
    Master::of(Path::new(env!("CARGO_BIN_EXE_haft")), &[("HAFT_BUILTIN", orders.to_string())])
}

#[test]
fn a_built_in_worker_lingers_for_its_session_and_ends() {
    builtin().see_it_out();
}

#[test]
fn a_library_worker_lingers_for_its_session_and_ends() {
    Master::of(&example("socketio"), &[]).see_it_out();
}

/// The client then asks on a new connection, which the master can bring to the right worker.
#[test]
fn a_worker_answers_what_is_another_s_with_400_and_ends_the_connection() {
    for mut master in [builtin(), Master::of(&example("socketio"), &[])] {
        let anothers = master.tagger.append("AAAAAAAAAAAAAAAA", OTHER);
        for first in [true, false] {
            let (mut client, sid) = if first { (master.client(), String::new()) } else { master.session() };
            if !first {
                assert_eq!(post(&mut client, &sid, "3"), "ok", "its own is served");
            }
            let refused = post_whole(&mut client, &anothers, "4a body");
            assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
            assert!(refused.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{refused}");
            assert!(refused.ends_with(r#"{"code":1,"message":"Session ID unknown"}"#), "{refused}");
        }
        while let Some(frame) = master.end.receive().expect("receive") {
            assert!(matches!(frame, FromWorker::Taken { .. }), "{frame:?}");
        }
    }
}

/// Without the time being over nobody makes it end: it does so by itself.
#[test]
fn a_built_in_worker_that_lingers_ends_when_its_master_has_died() {
    let mut master = builtin();
    let (client, _) = master.session();
    master.end.send_linger(600_000).expect("send");
    drop(client);
    let (gone, _) = MasterEnd::pair().expect("pair");
    drop(std::mem::replace(&mut master.end, gone));
    let status = eventually("the worker ends", || master.worker.try_wait().expect("wait"));
    assert!(status.success(), "{status}");
}

//! The application driven over real TCP sockets, by clients that speak raw HTTP and raw WebSocket frames.

mod closing;
mod heartbeat;
mod http;
mod lingering;
mod sessions;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::testing::*;
use super::{App, Identity};
use crate::config::EngineConfig as Settings;
use haft_worker::EndAddr;
use haft_worker::protocol::MasterEnd;
use haft_worker::scoreboard::{Field, Scoreboard};
use haft_worker::{Drain, Incoming, Tags};

pub(super) const IDENTITY: Identity = Identity { slot: 3, generation: 2, pid: 4711 };

pub(super) struct Server {
    pub(super) app: App,
    pub(super) addr: SocketAddr,
    pub(super) scoreboard: Scoreboard,
}

/// Serves until the runtime of the test ends.
pub(super) async fn serve(settings: Settings) -> Server {
    serve_tagging(settings, None).await
}

/// As [`serve`], with tags.
pub(super) async fn serve_tagging(settings: Settings, tags: Option<Tags>) -> Server {
    let scoreboard = Scoreboard::default();
    let app = App::new(&settings, IDENTITY, tags, scoreboard.clone(), Default::default()).expect("settings");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let addr = listener.local_addr().expect("address");
    let accepting = app.clone();
    tokio::spawn(async move {
        while let Ok((stream, client)) = listener.accept().await {
            tokio::spawn(accepting.serve_connection(stream, EndAddr::from_ip(client)));
        }
    });
    Server { app, addr, scoreboard }
}

/// Opens a polling session that has joined the namespace `/` and has nothing to receive.
pub(super) async fn connected(server: &Server) -> (Wire, String) {
    let mut wire = Wire::open(server.addr).await;
    let sid = open(&mut wire).await;
    assert_eq!(post(server.addr, &sid, "40").await.text(), "ok");
    let received = poll_for(&mut wire, &sid, "hello").await;
    assert!(received.contains(r#""slot":3"#) && received.contains(r#""pid":4711"#), "{received}");
    (wire, sid)
}

/// Asks for an echo and waits for it: the session works, and nothing older is left to be heard.
pub(super) async fn echoes(server: &Server, wire: &mut Wire, sid: &str, id: u32) {
    let sent = post(server.addr, sid, &format!("42{id}[\"echo\",\"x{id}\"]")).await;
    assert_eq!(sent.text(), "ok");
    let received = poll_for(wire, sid, &format!("42[\"echo\",\"x{id}\"]")).await;
    assert!(received.contains(&format!("43{id}[\"x{id}\"]")), "the acknowledgement comes first: {received:?}");
}

/// A worker's view of a master that sends these; and the master's end, for as long as it lives.
pub(super) async fn orders(words: impl FnOnce(&MasterEnd)) -> (Drain, MasterEnd) {
    let (master, channel) = MasterEnd::pair().expect("a channel");
    let mut incoming = Incoming::over(channel).expect("a worker");
    let drain = incoming.drain();
    words(&master);
    tokio::spawn(async move { while let Ok(Some(_)) = incoming.next().await {} });
    (drain, master)
}

impl Server {
    /// Ends the application as a worker does that is asked to finish within this time.
    pub(super) fn close(&self, within: Duration) -> tokio::task::JoinHandle<()> {
        let app = self.app.clone();
        tokio::spawn(async move {
            let within = u32::try_from(within.as_millis()).expect("milliseconds");
            let (drain, _master) = orders(|master| assert!(master.send_drain(within).is_ok())).await;
            tokio::select! {
                () = app.close() => {}
                () = app.say_goodbye(drain) => {}
            }
        })
    }
}

//! An axum and socketioxide application as a worker of haft's:
//!
//! ```text
//! cargo build --release --example socketio
//! haft -w 4 -l 3000 -- target/release/examples/socketio
//! ```
//!
//! Under `--affinity session` it tags its sessions, and on a reload keeps them until their clients have left.

use axum::{Router, routing::get};
use haft_worker::{Drain, Incoming, TagLayer};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};

async fn connected(socket: SocketRef, drain: Drain) {
    // Counted until the client is gone, so that the worker may linger until the last one is.
    let session = drain.session();
    socket.on_disconnect(async move || drop(session));
    socket.on("echo", async |Data::<serde_json::Value>(data), ack: AckSender| {
        ack.send(&data).ok();
    });
    socket.on("say", async |socket: SocketRef, Data::<String>(text)| {
        socket.broadcast().emit("said", &text).await.ok();
    });
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut incoming = Incoming::from_env()?;
    let drain = incoming.drain();
    let (engine, io) = SocketIo::new_layer();
    let counting = drain.clone();
    io.ns("/", async move |socket: SocketRef| connected(socket, counting).await);
    let slot = std::env::var("HAFT_SLOT").unwrap_or_default();
    let app = Router::new().route("/", get(async move || format!("slot {slot}\n"))).layer(engine);
    let app = app.layer(TagLayer::new(incoming.tags()));

    let (mut leaving, mut time) = (drain.clone(), drain.clone());
    tokio::spawn(async move {
        // socketioxide ends all clients at once, or none: it is one session for the goodbye. They reconnect by themselves.
        let mut open = Some(io);
        let end = |io: SocketIo| drop(tokio::spawn(async move { io.close().await }));
        leaving.goodbyes(|| open.take().into_iter().collect(), end).await;
    });
    let serving = async {
        axum::serve(incoming, app).with_graceful_shutdown(drain.clone().requested_only()).await?;
        drain.finished().await;
        Ok(())
    };
    tokio::select! {
        served = serving => served,
        // A client that stays is cut off.
        () = time.expired() => Ok(()),
    }
}

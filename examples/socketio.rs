//! An axum and socketioxide application as a worker of haft's:
//!
//! ```text
//! cargo build --release --example socketio
//! haft -w 4 -l 3000 -- target/release/examples/socketio
//! ```
//!
//! What it sends to many reaches the clients of all workers (`RoomsAdapter`). Under `--affinity session` it tags its sessions,
//! and on a reload keeps them until their clients have left.

use axum::{Router, routing::get};
use futures_util::StreamExt;
use haft_worker::{Drain, Incoming, RoomsAdapter, TagLayer};
use socketioxide::SocketIo;
use socketioxide::adapter::Emitter;
use socketioxide::extract::{AckSender, Data, SocketRef};

type Adapter = RoomsAdapter<Emitter>;
type Socket = SocketRef<Adapter>;

async fn connected(socket: Socket, io: SocketIo<Adapter>, drain: Drain) {
    // Counted until the client is gone, so that the worker may linger until the last one is.
    let session = drain.session();
    socket.on_disconnect(async move || drop(session));
    socket.on("echo", async |Data::<serde_json::Value>(data), ack: AckSender<Adapter>| {
        ack.send(&data).ok();
    });
    socket.on("say", async |socket: Socket, Data::<String>(text)| {
        socket.broadcast().emit("said", &text).await.ok();
    });
    socket.on("join", async |socket: Socket, Data::<String>(room), ack: AckSender<Adapter>| {
        socket.join(room);
        ack.send(&true).ok();
    });
    socket.on("leave", async |socket: Socket, Data::<String>(room), ack: AckSender<Adapter>| {
        socket.leave(room);
        ack.send(&true).ok();
    });
    socket.on("say to", async |socket: Socket, Data::<(String, String)>((room, text))| {
        socket.within(room).emit("said", &text).await.ok();
    });
    // How many clients there are, and what all of them answer.
    let (all, asked) = (io.clone(), io);
    socket.on("count", async move |ack: AckSender<Adapter>| {
        let sockets = all.fetch_sockets().await;
        ack.send(&sockets.map_or(0, |sockets| sockets.len())).ok();
    });
    socket.on("ask all", async move |Data::<String>(question), ack: AckSender<Adapter>| {
        if let Ok(answers) = asked.emit_with_ack::<_, serde_json::Value>("question", &question).await {
            let answers: Vec<_> = answers.filter_map(async |(_, answer)| answer.ok()).collect().await;
            ack.send(&answers).ok();
        }
    });
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut incoming = Incoming::from_env()?;
    let drain = incoming.drain();
    let (engine, io) = SocketIo::builder().with_adapter::<Adapter>(incoming.rooms().adapter()).build_layer();
    let (counting, all) = (drain.clone(), io.clone());
    io.ns("/", async move |socket: Socket| connected(socket, all, counting).await).await?;
    let slot = std::env::var("HAFT_SLOT").unwrap_or_default();
    let app = Router::new().route("/", get(async move || format!("slot {slot}\n"))).layer(engine);
    let app = app.layer(TagLayer::new(incoming.tags()));

    let (mut leaving, mut time) = (drain.clone(), drain.clone());
    tokio::spawn(async move {
        // socketioxide ends all clients at once, or none: it is one session for the goodbye. They reconnect by themselves.
        let mut open = Some(io);
        let end = |io: SocketIo<Adapter>| drop(tokio::spawn(async move { io.close().await }));
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

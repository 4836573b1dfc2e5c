//! An axum and socketioxide application as a worker of haft's:
//!
//! ```text
//! cargo build --release --example socketio
//! haft -w 4 -l 3000 -- target/release/examples/socketio
//! ```

use axum::{Router, routing::get};
use haft::worker::Incoming;
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};

async fn connected(socket: SocketRef) {
    socket.on("echo", async |Data::<serde_json::Value>(data), ack: AckSender| {
        ack.send(&data).ok();
    });
    socket.on("say", async |socket: SocketRef, Data::<String>(text)| {
        socket.broadcast().emit("said", &text).await.ok();
    });
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", connected);
    let slot = std::env::var("HAFT_SLOT").unwrap_or_default();
    let app = Router::new().route("/", get(async move || format!("slot {slot}\n"))).layer(layer);

    let incoming = Incoming::from_env()?;
    let drain = incoming.drain();
    let leaving = drain.clone();
    tokio::spawn(async move {
        leaving.requested_only().await;
        io.close().await;
    });
    axum::serve(incoming, app).with_graceful_shutdown(drain.clone().requested_only()).await?;
    drain.finished().await;
    Ok(())
}

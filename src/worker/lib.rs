//! Makes a Rust program a worker of [haft](https://crates.io/crates/haft), the sticky-session load balancer.
//!
//! ```no_run
//! # #[cfg(feature = "axum")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let app = axum::Router::new();
//! let incoming = haft_worker::Incoming::from_env()?;
//! let drain = incoming.drain();
//! axum::serve(incoming, app).with_graceful_shutdown(drain.clone().requested_only()).await?;
//! drain.finished().await;
//! # Ok(()) }
//! ```
//!
//! Under `--affinity session` it also tags the sessions it opens (`Incoming::tags`, `TagLayer`) and counts them
//! ([`Drain::session`]), so that a reload costs none of them, and ends those that stay to the last one by one ([`Drain::goodbyes`]);
//! `examples/socketio.rs` shows how.
//!
//! # Features
//!
//! None is on by default. `tags` brings the tags of sessions and the layer that writes them; `axum` brings `tags`, and
//! makes [`Incoming`] a listener for `axum::serve`. `rooms` lets workers exchange messages that concern the clients of
//! all of them (`Incoming::rooms`); `socketioxide` brings `rooms` as an adapter (`RoomsAdapter`), so that broadcasts
//! reach all clients.
//!
//! # Tests
//!
//! [`protocol`] has both ends of the channel, so that a worker can be tested without haft: a test is its master.

#![forbid(unsafe_code)]

mod attach_error;
mod doors;
mod drain;
mod goodbye;
mod incoming;
mod pace;
pub mod protocol;
#[cfg(feature = "rooms")]
mod rooms;
pub mod scoreboard;
mod stream;
#[cfg(feature = "tags")]
mod tag_layer;
#[cfg(feature = "tags")]
mod tags;
mod window;

#[cfg(test)]
mod testing;

pub use attach_error::AttachError;
pub use drain::{Drain, SessionGuard};
pub use haft_sys::addr::EndAddr;
pub use incoming::{Connection, Incoming, Peer};
#[cfg(feature = "socketioxide")]
pub use rooms::RoomsAdapter;
#[cfg(feature = "rooms")]
pub use rooms::{Emitted, Rooms, RoomsError, RoomsMessage};
pub use stream::Stream;
#[cfg(feature = "tags")]
pub use tag_layer::{TagLayer, TagService};
#[cfg(feature = "tags")]
pub use tags::{Tags, Untagged};

//! What a worker needs: the library for Rust programs, and the built-in Socket.IO worker.
//!
//! A Rust program becomes a worker in a few lines:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let app = axum::Router::new();
//! let incoming = haft::worker::Incoming::from_env()?;
//! let drain = incoming.drain();
//! axum::serve(incoming, app).with_graceful_shutdown(drain.clone().requested_only()).await?;
//! drain.finished().await;
//! # Ok(()) }
//! ```
//!
//! Under `--affinity session` it also tags the sessions it opens ([`Incoming::tags`], [`TagLayer`]) and counts them
//! ([`Drain::session`]), so that a reload costs none of them; `examples/socketio.rs` shows how.

pub mod builtin;
mod doors;
mod drain;
mod incoming;
pub mod process;
mod stream;
mod tag_layer;
mod tags;
mod window;

#[cfg(test)]
mod testing;

pub use drain::{Drain, SessionGuard};
pub use incoming::{AttachError, Connection, Incoming};
pub use stream::Stream;
pub use tag_layer::{TagLayer, TagService};
pub use tags::{Tags, Untagged, Whose};

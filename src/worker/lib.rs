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
//! Under `--affinity session` it also tags the sessions it opens ([`Incoming::tags`], `TagLayer`) and counts them
//! ([`Drain::session`]), so that a reload costs none of them; `examples/socketio.rs` shows how.
//!
//! [`protocol`] has both ends of the channel, so that a worker can be tested without haft: a test is its master.

#![forbid(unsafe_code)]

mod attach_error;
mod doors;
mod drain;
mod incoming;
pub mod protocol;
pub mod scoreboard;
mod stream;
#[cfg(feature = "axum")]
mod tag_layer;
mod tags;
mod window;

#[cfg(test)]
mod testing;

pub use attach_error::AttachError;
pub use drain::{Drain, SessionGuard};
pub use haft_sys::addr::EndAddr;
pub use incoming::{Connection, Incoming, Peer};
pub use stream::Stream;
#[cfg(feature = "axum")]
pub use tag_layer::{TagLayer, TagService};
pub use tags::{Tags, Untagged, Whose};

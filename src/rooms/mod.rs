//! Rooms: what Socket.IO sends to many clients reaches those of every worker.
//!
//! Workers are members. Each has a stream socket to a relay, which passes messages on from one member to another, or to
//! all others. The relay has a thread of its own, so that however much is sent, the master's loop accepts and hands
//! over as if nothing were. A message's content concerns the members alone: its frame
//! ([`haft_worker::protocol::rooms`]) is all that the relay reads.
//!
//! Where there are several hosts, their relays are members of each other ([`bridge`]): one link for each host, over Redis.
//! Workers do not see the difference.
//!
//! # What must hold
//!
//! 1. What one member sends arrives in its order, and everything arrives at each member that lives and reads.
//! 2. A member that does not read loses only what is sent to it, once `member::MAX_QUEUED` bytes wait for it. That is
//!    counted by reason ([`RoomsCounters`]), and no other member waits.
//! 3. Joins and leaves are delivered in order with the messages: nothing from a member comes before it has joined or
//!    after it has left. Its end is known as soon as the kernel closes its socket.
//! 4. Any bytes of a member's give frames, or end that member.

pub mod bridge;
mod counts;
mod emitter;
mod member;
mod msgpack;
mod redis;
mod relay;
pub mod servers;
mod serving;
mod shared;
mod thread;

pub use counts::{DropReason, RoomsCounters, RoomsTotals};
pub use redis::RedisLink;
pub use shared::RoomsRelay;
pub use thread::{RoomsThread, RoomsThreadError};

#[cfg(test)]
mod tests;

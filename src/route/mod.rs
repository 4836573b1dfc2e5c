//! Pure routing: what must stick and the number of slots in, an order of slots out.
//!
//! ```text
//!      session id ──▶ Tag ──▶ Slot and generation        (--affinity session, tag)
//!       value ──▶ ValueKeys ──┐                    (--affinity query:NAME, cookie:NAME, header:NAME, path:N)
//! address ──▶ Key ──▶ Table::order ──▶ Slot, Slot, ...   (--affinity ip)
//!         loads of the slots ──▶ least_loaded ──▶ Slot   (--affinity none)
//!            the kernel's packet ──▶ Steering ──▶ Slot   (--dispatch kernel)
//! ```
//!
//! Beside that, [`Buckets`] say whether a client comes faster than it may.
//!
//! Nothing here asks a clock or the system, remembers a client (but for those buckets), or knows whether a slot's worker is well: candidates
//! come as an iterator and the caller takes the first that will do. Choosing allocates nothing.
//!
//! The same input gives the same slot in every process, on every machine and in every later run. The hash of addresses is
//! not secret: a client that may choose its address may choose its slot. Values that clients choose freely are hashed with
//! a secret key ([`ValueKeys`]).

#![forbid(unsafe_code)]

mod hash;
mod key;
mod keyed;
mod limit;
mod load;
mod steer;
mod table;

#[cfg(test)]
mod tests;

pub use haft_worker::protocol::{HostId, Reading, Slot, Tag, TagKey, Tagger};
pub use key::{Key, Prefix};
pub use keyed::ValueKeys;
pub use limit::{Buckets, Source, TokenBucket, TokenRate, TooFast};
pub use load::{RoundRobin, burden, least_loaded, weight};
pub use steer::{Instruction, MARKS_IPV4, MARKS_IPV6, MAX_RENDEZVOUS, Steering};
pub use table::{MAX_SLOTS, Order, SlotCountError, Table};

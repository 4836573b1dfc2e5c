//! What was sent between workers for the clients of each other.

use std::fmt;

use crate::admin::families::{Families, no_labels};
use crate::rooms::RoomsTotals;

pub(super) fn totals(families: &mut Families<'_>, now: &RoomsTotals) -> fmt::Result {
    families.gauge("haft_rooms_members", "Workers that share rooms.", [(no_labels(), now.members)])?;
    families.gauge("haft_rooms_hosts", "Other hosts that share rooms with this one.", [(no_labels(), now.hosts)])?;
    families.gauge(
        "haft_rooms_linked",
        "1 while the link to other hosts (--redis) holds.",
        [(no_labels(), u64::from(now.is_linked))],
    )?;
    families.counter("haft_rooms_link_breaks", "How often that link broke.", [(no_labels(), now.link_breaks)])?;
    families.counter(
        "haft_rooms_messages",
        "Messages that workers have sent to each other for rooms (broadcasts, questions, answers).",
        [(no_labels(), now.messages)],
    )?;
    families.counter(
        "haft_rooms_deliveries",
        "Messages between workers by receiver: one for three workers counts three times.",
        [(no_labels(), now.deliveries)],
    )?;
    families.counter("haft_rooms_bytes", "Bytes of those deliveries.", [(no_labels(), now.bytes)])?;
    families.counter(
        "haft_rooms_dropped",
        "Messages between workers that did not arrive: their receiver did not read or had left, or their sender could not \
         send them.",
        now.dropped.iter().map(|(reason, count)| (vec![("reason", (*reason).into())], *count)),
    )
}

//! The answer as a table.

use std::fmt;

use super::explain::{By, Explanation, ParsedSession};
use crate::route::Slot;

/// Most slots of an order that are shown.
const SHOWN: usize = 16;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((ip, how)) = self.client {
            row(f, "client", format_args!("{ip}{how}"))?;
        }
        row(f, "affinity", &self.affinity)?;
        for (criterion, fate) in &self.criteria {
            row(f, &format!("  {criterion}"), fate)?;
        }
        if let Some(session) = &self.session {
            session.fmt(f)?;
        }
        for note in &self.notes {
            row(f, "note", note)?;
        }
        self.by(f)
    }
}

impl Explanation {
    fn by(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            By::Unknown(why) => row(f, "goes to", format_args!("(not known) {why}")),
            By::RecentSessions => row(f, "goes to", "the worker with the fewest sessions, since it opens one"),
            By::Load => row(f, "goes to", "the worker with the least on its way: nothing sticks"),
            By::Session(tag) => {
                let slot = tag.slot;
                if slot.index() < self.slots {
                    let generation = tag.generation;
                    row(f, "goes to", format_args!("slot {slot}, to the worker of generation {generation}"))?;
                    row(
                        f,
                        "if it is gone",
                        format_args!("the slot's present worker, which answers 400: the client comes anew"),
                    )
                } else {
                    let slots = self.slots;
                    row(f, "goes to", format_args!("the address decides: there is no slot {slot} of {slots}"))
                }
            }
            By::Key { of, key, order, with_one_more } => {
                row(f, "key", format_args!("{:016x}: {of}", key.bits()))?;
                row(f, "order", Listed(order))?;
                let own = order.first().copied().unwrap_or(Slot(0));
                row(f, "goes to", format_args!("slot {own}; while that is not to be had, to the next in the order"))?;
                let Some(other) = with_one_more else { return Ok(()) };
                let count = self.slots + 1;
                match *other == own {
                    true => row(f, &format!("with {count} slots"), format_args!("slot {own}: it stays")),
                    false => row(f, &format!("with {count} slots"), format_args!("slot {other}: it moves")),
                }
            }
        }
    }
}

impl fmt::Display for ParsedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "session", &self.base)?;
        let Some((host, tag)) = self.tag else { return row(f, "  tag", "none") };
        let host = if host.is_some() { &format!("host {host}, ") } else { "" };
        row(f, "  tag", format_args!("{host}slot {}, generation {}", tag.slot, tag.generation))?;
        row(
            f,
            "  checksum",
            match self.is_valid {
                Some(true) => "valid",
                Some(false) => "wrong: made with another key, or by hand; it is ignored",
                None => "cannot be checked without --tag-key",
            },
        )
    }
}

/// Slots in their order.
struct Listed<'s>(&'s [Slot]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, slot) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{slot}", if index > 0 { ", " } else { "" })?;
        }
        if self.0.len() > SHOWN { write!(f, ", ... ({} slots)", self.0.len()) } else { Ok(()) }
    }
}

/// One line.
pub(super) fn row(f: &mut impl fmt::Write, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<16} {value}")
}

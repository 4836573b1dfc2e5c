//! The figures where the kernel assigns connections.

use std::fmt;

use super::super::families::{Families, no_labels};
use super::super::snapshot::Snapshot;
use super::{by, by_slot};

pub(super) fn queues(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    families.counter(
        "haft_connections_rescued",
        "Connections taken out of the accept queue of a slot that no worker served, and handed to another.",
        [(no_labels(), now.rescued)],
    )?;
    families.counter(
        "haft_listener_repairs",
        "How often listeners that a worker had changed were put right (--dispatch kernel).",
        by("fault", &now.listener_repairs),
    )?;
    families.gauge(
        "haft_accept_queue_length",
        "Connections that wait in the kernel for the slot's worker to accept them (--dispatch kernel).",
        by_slot(&now.slots, |status| status.accept_queue),
    )
}

//! What did not get through of what haft and its workers write.

use std::fmt;

use super::super::families::{Families, no_labels};
use super::super::snapshot::Snapshot;
use super::by_slot;

pub(super) fn lines(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    families.counter(
        "haft_log_lines_dropped",
        "Lines of haft's own log that were dropped, because standard error was not read or could not be written.",
        [(no_labels(), now.log_lines_dropped)],
    )?;
    families.counter(
        "haft_log_lines_suppressed",
        "Lines of haft's own log that were suppressed, because there were too many of one kind.",
        [(no_labels(), now.log_lines_suppressed)],
    )?;
    families.counter(
        "haft_worker_output_lines_dropped",
        "Lines that the slot's workers wrote and that were dropped, because haft's output was not read.",
        by_slot(&now.slots, |status| Some(status.output_lines_dropped)),
    )?;
    families.counter(
        "haft_worker_output_pauses",
        "How often the output of the slot's workers was left alone for a moment, because they wrote too much.",
        by_slot(&now.slots, |status| Some(status.output_pauses)),
    )
}

//! Telling of lines that are missing: that were suppressed, or dropped for want of room.

use std::time::Instant;

use tracing::Level;

use super::limit::{LIMITS, Suppressed};
use super::writing::{LogSource, LogTarget};

/// The target of these lines.
pub(super) const TARGET: &str = "haft::log";

/// Whether a notice may be due soon.
pub(super) fn are_due_soon() -> bool {
    LIMITS.has_pending()
}

/// Reports how many lines were suppressed, for floods that are over or last long.
pub(super) fn log_suppressed(now: Instant) {
    LIMITS.due(now, false).iter().for_each(log);
}

/// Reports all of them: the process ends.
pub(super) fn log_all_suppressed() {
    LIMITS.due(Instant::now(), true).iter().for_each(log);
}

fn log(Suppressed { level, count, example }: &Suppressed) {
    // A macro's level is a constant.
    match *level {
        Level::ERROR => tracing::error!(target: TARGET, count, "more lines of one kind were suppressed: {example}"),
        Level::WARN => tracing::warn!(target: TARGET, count, "more lines of one kind were suppressed: {example}"),
        _ => tracing::info!(target: TARGET, count, "more lines of one kind were suppressed: {example}"),
    }
}

/// Reports lines that were dropped, now that there is room again.
pub(super) fn log_dropped(output: LogTarget, source: LogSource, lines: u64) {
    let output = output.name();
    match source {
        // With errors alone enabled, errors may have been lost.
        None if !tracing::enabled!(target: TARGET, Level::WARN) => {
            tracing::error!(target: TARGET, lines, "log lines were dropped: {output} was not read, or could not be written");
        }
        None => {
            tracing::warn!(target: TARGET, lines, "log lines were dropped: {output} was not read, or could not be written");
        }
        Some(slot) => tracing::warn!(
            target: TARGET,
            %slot,
            lines,
            "lines of the slot's worker were dropped: {output} was not read, or could not be written"
        ),
    }
}

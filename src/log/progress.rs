//! Progress, reported repeatedly: on a terminal in one line that is written over, elsewhere as lines of the log.

use std::sync::atomic::{AtomicBool, Ordering};

use super::queue::STDERR;

/// Whether standard error is a terminal that lines for people go to.
static IN_PLACE: AtomicBool = AtomicBool::new(false);
/// Whether the cursor stands at the beginning of such a line.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Clears the terminal's line from the cursor on (ECMA-48, EL).
const CLEAR: &str = "\x1b[K";

/// Returns whether standard error is a terminal that text lines go to.
pub(super) fn start(in_place: bool) {
    IN_PLACE.store(in_place, Ordering::Relaxed);
}

/// Replaces the progress shown before. The text must fit a line of the terminal.
pub fn progress(text: &str) {
    if !IN_PLACE.load(Ordering::Relaxed) {
        tracing::info!("{text}");
        return;
    }
    SHOWN.store(true, Ordering::Relaxed);
    // The cursor goes back, so that whatever is written next, by whomever, begins a line.
    STDERR.push(format!("{CLEAR}{text}\r").as_bytes());
}

/// What a line of the log must begin with, so that nothing is left of the progress shown before.
pub(super) fn clearing() -> &'static str {
    if SHOWN.swap(false, Ordering::Relaxed) { CLEAR } else { "" }
}

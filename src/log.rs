//! How haft speaks to its operator: one line an event on standard error or in a file, for people or as JSON.
//!
//! No line waits for its reader, none is forged by what it names, and a flood of one kind becomes a few. The `queue`
//! has the outputs, `escape` what may stand in a line, `limit` how many lines there are of a kind.

mod escape;
mod file;
mod limit;
mod notices;
mod progress;
mod queue;
mod writing;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Writer, format};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::escape::{escaped, without_error_numbers};
pub use self::file::LogFileError;
pub use self::progress::progress;
use self::queue::{LOG_FILE, STDERR};
pub use self::queue::{OutputQueue, STDOUT};
pub use self::writing::{LogTarget, terminal_has_colours};
use crate::config::{Log, LogFormat};
use crate::route::Slot;
use crate::sys::local_time;

const OUTPUTS: [&OutputQueue; 3] = [&STDERR, &STDOUT, &LOG_FILE];

/// The queue before standard error, or before the file that takes its place: for haft's own lines and what workers
/// write to their standard error.
pub fn queue() -> &'static OutputQueue {
    if file::path().is_some() { &LOG_FILE } else { &STDERR }
}

/// Opens the log file again under its name. Returns whether there is one.
pub fn reopen() -> bool {
    let there_is_one = file::path().is_some();
    if there_is_one {
        LOG_FILE.reopen();
    }
    there_is_one
}

/// Starts the log of this process. A level that is not a filter counts as `info`: the flags have judged it before.
///
/// # Errors
///
/// When the log file cannot be opened. The log is on standard error then.
pub fn start(log: &Log) -> Result<(), LogFileError> {
    let opened = log.file.as_deref().map_or(Ok(()), file::use_from_now_on);
    let for_people = file::path().is_none() && io::stderr().is_terminal();
    let filter = log.level.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(|| LineWriter)
        .with_target(false)
        // There is nowhere else to report them.
        .log_internal_errors(false);
    progress::start(log.format == LogFormat::Text && for_people);
    // Only a second start in one process fails, and then there is a log already.
    match log.format {
        LogFormat::Text => {
            let lines = lines.with_ansi(for_people && STDERR.is_colourful()).fmt_fields(escape::text_fields());
            if for_people {
                lines.with_timer(TimeOfDay).finish().with(filter).with(limit::Limiting).try_init().ok()
            } else {
                lines.finish().with(filter).with(limit::Limiting).try_init().ok()
            }
        }
        LogFormat::Json => {
            let json = format().json().flatten_event(true).with_target(false);
            let lines = lines.json().event_format(escape::JsonLine(json));
            lines.finish().with(filter).with(limit::Limiting).try_init().ok()
        }
    };
    std::panic::set_hook(Box::new(on_panic));
    opened
}

/// The hour, minute and second where haft is: at a terminal the day is known.
struct TimeOfDay;

impl FormatTime for TimeOfDay {
    fn format_time(&self, line: &mut Writer<'_>) -> fmt::Result {
        let (hour, minute, second) = local_time::now().ok_or(fmt::Error)?;
        write!(line, "{hour:02}:{minute:02}:{second:02}")
    }
}

/// Logs a panic through the queue: the standard hook would block on a slow reader.
fn on_panic(panic: &PanicHookInfo<'_>) {
    tracing::error!("this is a bug in haft: {panic}");
    flush();
}

/// Reports why this process ends: on standard error, too, where the log is a file. What is yet to be written is waited
/// for, but not for long.
pub fn last_words(text: impl fmt::Display) {
    notices::log_all_suppressed();
    let line = escape::without_error_numbers(&escape::one_line(text)) + "\n";
    STDERR.push(line.as_bytes());
    if file::path().is_some() {
        LOG_FILE.push(line.as_bytes());
    }
    flush();
}

/// Waits until what this process has to say has been written, but not for long: its reader may have stalled.
pub fn flush() {
    notices::log_all_suppressed();
    OUTPUTS.iter().for_each(|output| output.flush());
}

/// Lines of haft's own that did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Dropped: standard error was not read, or could not be written.
    pub dropped: u64,
    /// Suppressed: too many of one kind.
    pub suppressed: u64,
}

/// How many lines of haft's own did not get through until now.
pub fn missing() -> Missing {
    Missing { dropped: OUTPUTS.iter().map(|output| output.dropped()).sum(), suppressed: limit::LIMITS.suppressed() }
}

/// Lines of a slot's workers that were dropped until now.
pub fn dropped_of(slot: Slot) -> u64 {
    OUTPUTS.iter().map(|output| output.dropped_of(slot)).sum()
}

/// How often the workers of a slot were made to wait, since they wrote too much.
pub fn pauses_of(slot: Slot) -> u64 {
    OUTPUTS.iter().map(|output| output.pauses_of(slot)).sum()
}

/// Where the formatter writes a line, whole.
struct LineWriter;

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match progress::clearing() {
            "" => queue().push(bytes),
            clear => queue().push(&[clear.as_bytes(), bytes].concat()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

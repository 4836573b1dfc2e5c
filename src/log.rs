//! How haft speaks to its operator: one line an event on standard error, for people or as JSON.
//!
//! No line waits for its reader, none is forged by what it names, and a flood of one kind is told in a few. The `queue`
//! has the outputs, `escape` what may stand in a line, `limit` how many lines there are of a kind.

mod escape;
mod limit;
mod notices;
mod progress;
mod queue;
mod writing;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::escape::without_error_numbers;
pub use self::progress::progress;
pub use self::queue::{OutputQueue, STDERR, STDOUT};
pub use self::writing::Target;
use crate::config::{Log, LogFormat};

/// Starts the log of this process. A level that is not a filter counts as `info`: the flags have judged it before.
pub fn start(log: &Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Line)
        .with_target(false)
        // There is nowhere else to tell of them.
        .log_internal_errors(false);
    progress::start(log.format == LogFormat::Text && io::stderr().is_terminal());
    // Only a second start in one process fails, and then there is a log already.
    match log.format {
        LogFormat::Text => {
            let lines = lines.with_ansi(io::stderr().is_terminal()).fmt_fields(escape::text_fields());
            lines.finish().with(limit::Limiting).try_init().ok()
        }
        LogFormat::Json => {
            let json = format().json().flatten_event(true).with_target(false);
            let lines = lines.json().event_format(escape::JsonLine(json));
            lines.finish().with(limit::Limiting).try_init().ok()
        }
    };
    std::panic::set_hook(Box::new(on_panic));
}

/// Tells of a bug in the log's own way: the standard hook would wait for the reader.
fn on_panic(panic: &PanicHookInfo<'_>) {
    tracing::error!("this is a bug in haft: {panic}");
    flush();
}

/// Tells why this process ends. What is yet to be written is waited for, but not for long.
pub fn last_words(text: impl fmt::Display) {
    notices::tell_all_suppressed();
    let text = escape::without_error_numbers(&escape::one_line(text));
    STDERR.push(format!("{text}\n").as_bytes());
    flush();
}

/// Waits until what this process has to say has been written, but not for long: its reader may have stalled.
pub fn flush() {
    notices::tell_all_suppressed();
    STDERR.flush();
    STDOUT.flush();
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
    Missing { dropped: STDERR.dropped(), suppressed: limit::LIMITS.suppressed() }
}

/// Where the formatter writes a line, whole.
struct Line;

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match progress::clearing() {
            "" => STDERR.push(bytes),
            clear => STDERR.push(&[clear.as_bytes(), bytes].concat()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

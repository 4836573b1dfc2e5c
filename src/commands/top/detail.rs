//! What `haft top` shows of a slot alone, in few lines: what is not known or has never happened is left out.

use super::model::Row;
use crate::commands::table::{bytes, or_dash};

/// Columns of all, and of the names.
pub(super) const WIDTH: u16 = 42;
const NAMES: usize = 12;
/// What stands in one line, by its name, with a word before each figure.
const GROUPS: [(&str, &[(&str, &str)]); 9] = [
    ("connections", &[("open", "open_connections"), ("came", "connections")]),
    ("sessions", &[("polling", "polling_sessions"), ("websocket", "websocket_sessions"), ("other", "other_sessions")]),
    ("", &[("begun", "sessions_opened"), ("upgraded", "upgrades"), ("recovered", "recovered")]),
    (
        "ended",
        &[
            ("by ping timeout", "closed_ping_timeout"),
            ("by the client", "closed_transport"),
            ("by an error", "closed_error"),
            ("by the program", "closed_by_server"),
            ("otherwise", "closed_other"),
        ],
    ),
    (
        "refused",
        &[
            ("session", "refused_session"),
            ("transport", "refused_transport"),
            ("method", "refused_method"),
            ("request", "refused_request"),
            ("forbidden", "refused_forbidden"),
            ("protocol", "refused_protocol"),
            ("other", "refused_other"),
        ],
    ),
    ("messages", &[("in", "messages_in"), ("out", "messages_out")]),
    ("lost", &[("at a goodbye", "lost_goodbye"), ("for want of room", "lost_queue")]),
    (
        "closed",
        &[
            ("connection too large", "closed_memory_connection"),
            ("worker too large", "closed_memory_worker"),
            ("read nothing", "closed_memory_stalled"),
        ],
    ),
    ("errors", &[("uncaught", "uncaught_errors")]),
];

/// The lines, none longer than [`WIDTH`] unless one figure is.
pub(super) fn lines(row: &Row) -> Vec<String> {
    let slot = &row.slot;
    let line = |name: &str, text: String| format!("{name:<NAMES$}{text}");
    let mut lines = vec![
        line("state", slot.condition()),
        line("worker", format!("{}, pid {}, generation {}", slot.worker, or_dash(slot.pid), slot.generation)),
        line("memory", row.memory.map_or_else(|| "-".to_owned(), bytes)),
    ];
    let reported = |name: &str| slot.reported(name);
    if let (Some(used), Some(most)) = (reported("heap_used"), reported("heap_limit")) {
        lines.push(line("heap", format!("{} of {}", bytes(used as u64), bytes(most as u64))));
    }
    let delay =
        ["p50", "p99", "max"].map(|stat| Some(format!("{stat} {:.1}", reported(&format!("loop_delay_{stat}"))? / 1e6)));
    let delay: Vec<String> = delay.into_iter().flatten().collect();
    if !delay.is_empty() {
        lines.push(line("loop, ms", delay.join(", ")));
    }
    for (name, figures) in GROUPS {
        let some =
            figures.iter().filter_map(|(word, figure)| Some((word, reported(figure).filter(|count| *count > 0.0)?)));
        let pieces = some.map(|(word, count)| format!("{word} {count:.0}"));
        for (at, text) in wrapped(pieces, usize::from(WIDTH) - NAMES - 1).into_iter().enumerate() {
            lines.push(line(if at == 0 { name } else { "" }, text));
        }
    }
    if let (Some(read), Some(written)) = (reported("bytes_in"), reported("bytes_out")) {
        lines.push(line("traffic", format!("in {}, out {}", bytes(read as u64), bytes(written as u64))));
    }
    lines
}

/// The pieces with commas between them, in lines of this width.
fn wrapped(pieces: impl Iterator<Item = String>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in pieces {
        match lines.last_mut() {
            Some(line) if line.len() + 2 + piece.len() <= width => *line += &format!(", {piece}"),
            Some(line) => {
                line.push(',');
                lines.push(piece);
            }
            None => lines.push(piece),
        }
    }
    lines
}

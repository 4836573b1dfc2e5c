//! `haft status`.

use std::process::ExitCode;

use super::table::{TextTable, age, bytes, or_dash};
use super::target::{RunningHaft, Target};
use super::view::{Draining, SlotView, Status};
use crate::log::escaped;

/// Show a running haft: its slots, workers and connections
///
/// Where several run, it lists them; --name chooses one. LOOP is by how many milliseconds the worker's event loop is late (the
/// 99th percentile of the last second), CONN how many connections it has open, INFL how many are on their way to it, RST how
/// often it ended by itself or was replaced for its size or age.
#[derive(Debug, clap::Args)]
pub(super) struct StatusCommand {
    #[command(flatten)]
    target: Target,

    /// All that haft knows, as JSON: the page /status as it is
    #[arg(long)]
    json: bool,
}

impl StatusCommand {
    pub(super) fn run(self) -> ExitCode {
        super::report(self.target.find().and_then(|RunningHaft { client, status }| {
            if self.json {
                return Ok(client.get("/status")?.body);
            }
            Ok(table(&status))
        }))
    }
}

fn table(status: &Status) -> String {
    let mut text = format!("{}\n{}\n", status.heading(), status.totals());
    let refused = status.refusals().map(|refusal| format!("refused: {refusal}"));
    let note = status.note.iter().map(|note| escaped(note));
    let reload = status.reload.iter().map(|reload| escaped(&reload.description));
    let stopping = status.stopping.then(|| "haft is stopping".to_owned());
    let alarms = status.alarm_lines().map(|line| format!("alarm: {line}"));
    text.extend(refused.chain(note).chain(reload).chain(stopping).chain(alarms).map(|line| line + "\n"));
    format!("{text}\n{}", slots(status))
}

/// A column: its heading, its text for a slot, and for a worker that drains.
type Column = (&'static str, fn(&SlotView) -> String, fn(&Draining) -> String);

const COLUMNS: [Column; 13] = [
    ("SLOT", |slot| slot.slot.to_string(), |worker| worker.slot.to_string()),
    ("STATE", SlotView::condition, |_| "finishing".to_owned()),
    ("PID", |slot| or_dash(slot.pid), |worker| or_dash(worker.pid)),
    ("GEN", |slot| slot.generation.to_string(), |worker| worker.generation.to_string()),
    ("UP", |slot| age(slot.uptime_seconds), |worker| age(worker.uptime_seconds)),
    ("MEM", |slot| or_dash(slot.process.as_ref().map(|process| bytes(process.resident_bytes))), |_| "-".to_owned()),
    ("LOOP", |slot| or_dash(slot.loop_delay().map(|late| format!("{late:.1}"))), |_| "-".to_owned()),
    ("CONN", |slot| or_dash(slot.connections()), |worker| or_dash(worker.open)),
    ("SESS", |slot| or_dash(slot.all_sessions()), |worker| or_dash(worker.sessions)),
    ("INFL", |slot| (slot.in_flight + slot.held).to_string(), |worker| (worker.in_flight + worker.held).to_string()),
    ("DELIVERED", |slot| slot.delivered.to_string(), |_| "-".to_owned()),
    ("RST", |slot| slot.restarts().to_string(), |_| "-".to_owned()),
    (
        "LAST EXIT",
        |slot| slot.last_exit.as_ref().map(|exit| escaped(&exit.description)).unwrap_or_default(),
        |_| String::new(),
    ),
];

fn slots(status: &Status) -> TextTable {
    let mut table = TextTable::new(&COLUMNS.map(|(heading, ..)| heading));
    for slot in &status.slots {
        table.row(COLUMNS.map(|(_, of, _)| of(slot)));
        for worker in status.draining.iter().filter(|it| it.slot == slot.slot && it.worker != slot.worker) {
            table.row(COLUMNS.map(|(_, _, of)| of(worker)));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_a_row_and_so_is_a_worker_that_finishes() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "version": "1.2.3", "name": "api-80", "pid": 7, "uptime_seconds": 3700.5, "listen": ["http://x\u{1b}[2J"],
            "accepted": 9, "refused": {"no_worker": 2, "stopping": 0}, "in_flight": 1, "held": 0,
            "affinity": "ip", "dispatch": "handover", "balance": [{"delivered": 6}],
            "slots": [{"slot": 0, "state": "ready", "drained": true, "worker": 3, "pid": 8, "generation": 1,
                "last_exit": {"description": "exit code 1", "unix_time": 1}, "respawned": 1, "replaced": {"ended": 1, "memory": 2, "age": 3, "reload": 4}, "open": 4, "new": true,
                "in_flight": 5, "held": 2, "process": {"resident_bytes": 40 << 20},
                "reported": {"open_connections": 12, "polling_sessions": 1, "websocket_sessions": 2, "loop_delay_p99": 1.5e6}}],
            "draining": [{"slot": 0, "worker": 2, "pid": 9, "open": 1}],
            "alarms": [{"alarm": "skew", "active": true, "line": "slot 0\u{7} gets all"}, {"alarm": "restarts"}]
        }))
        .expect("a status");
        let text = table(&status);
        assert!(text.starts_with("haft 1.2.3  api-80  pid 7  up 1h 01m  http://x\\u{1b}[2J\n"), "{text}");
        assert!(text.contains("accepted 9, delivered 6, refused 2, in flight 1 (held 0)"), "{text}");
        assert!(text.contains("\nrefused: no_worker 2\n") && !text.contains("stopping"), "{text}");
        assert!(text.contains("\nalarm: slot 0\\u{7} gets all\n\n"), "{text}");
        let rows: Vec<Vec<&str>> = text.lines().rev().take(2).map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(
            rows[1],
            ["0", "ready,", "drained", "8", "1", "0s", "40M", "1.5", "12", "3", "7", "0", "6", "exit", "code", "1"]
        );
        assert_eq!(rows[0][..10], ["0", "finishing", "9", "0", "0s", "-", "-", "1", "-", "0"]);
    }
}

//! `haft status`.

use std::process::ExitCode;

use super::table::{Table, age, or_dash};
use super::target::{Found, Target};
use super::view::{Slot, Status};
use crate::log::escaped;

/// Show a running haft: its slots, workers and connections
///
/// Where several run, it lists them; --name chooses one.
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
        super::report(self.target.find().and_then(|Found { client, status }| {
            if self.json {
                return Ok(client.get("/status")?.body);
            }
            Ok(table(&status))
        }))
    }
}

fn table(status: &Status) -> String {
    let mut text = format!(
        "haft {}  {}  pid {}  up {}  {}\n",
        escaped(&status.version),
        escaped(&status.name),
        status.pid,
        age(status.uptime_seconds),
        escaped(&status.listen.join(" "))
    );
    let refused: u64 = status.refused.values().sum();
    text += &format!(
        "accepted {}, delivered {}, refused {refused}, in flight {} (held {}); affinity {}, dispatch {}\n",
        status.accepted,
        status.delivered(),
        status.in_flight,
        status.held,
        escaped(&status.affinity),
        escaped(&status.dispatch)
    );
    for (reason, count) in status.refused.iter().filter(|(_, count)| **count > 0) {
        text += &format!("refused, {}: {count}\n", escaped(reason));
    }
    text += &status.note.iter().map(|note| format!("{}\n", escaped(note))).collect::<String>();
    if let Some(reload) = &status.reload {
        text += &format!("{}\n", escaped(&reload.description));
    }
    if status.stopping {
        text += "haft is stopping\n";
    }
    format!("{text}\n{}", slots(status))
}

fn slots(status: &Status) -> Table {
    let mut table = Table::new(&[
        "SLOT",
        "STATE",
        "WORKER",
        "PID",
        "GEN",
        "UP",
        "OPEN",
        "SESSIONS",
        "IN FLIGHT",
        "HELD",
        "DELIVERED",
        "RESTARTS",
        "LAST EXIT",
    ]);
    for slot in &status.slots {
        table.row(row(slot));
        for worker in status.draining.iter().filter(|it| it.slot == slot.slot && it.worker != slot.worker) {
            table.row([
                slot.slot.to_string(),
                "finishing".to_owned(),
                worker.worker.to_string(),
                or_dash(worker.pid),
                worker.generation.to_string(),
                age(worker.uptime_seconds),
                or_dash(worker.open),
                or_dash(worker.sessions),
                worker.in_flight.to_string(),
                worker.held.to_string(),
                "-".to_owned(),
                "-".to_owned(),
            ]);
        }
    }
    table
}

fn row(slot: &Slot) -> [String; 13] {
    let last_exit = slot.last_exit.as_ref().map(|exit| escaped(&exit.description));
    [
        slot.slot.to_string(),
        slot.condition(),
        or_dash(Some(slot.worker).filter(|worker| *worker > 0)),
        or_dash(slot.pid),
        slot.generation.to_string(),
        age(slot.uptime_seconds),
        or_dash(slot.open),
        or_dash(slot.sessions),
        slot.in_flight.to_string(),
        slot.held.to_string(),
        slot.delivered.to_string(),
        slot.restarts().to_string(),
        last_exit.unwrap_or_default(),
    ]
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
                "last_exit": {"description": "exit code 1", "unix_time": 1}, "respawned": 1, "replaced": {"ended": 1, "memory": 2, "age": 3, "reload": 4}, "open": 4, "new": true}],
            "draining": [{"slot": 0, "worker": 2, "pid": 9, "open": 1}]
        }))
        .expect("a status");
        let text = table(&status);
        assert!(text.starts_with("haft 1.2.3  api-80  pid 7  up 1h 01m  http://x\\u{1b}[2J\n"), "{text}");
        assert!(text.contains("accepted 9, delivered 6, refused 2, in flight 1 (held 0)"), "{text}");
        assert!(text.contains("refused, no_worker: 2\n") && !text.contains("stopping"), "{text}");
        let rows: Vec<Vec<&str>> = text.lines().rev().take(2).map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(
            rows[1],
            ["0", "ready,", "drained", "3", "8", "1", "0s", "4", "-", "0", "0", "0", "6", "exit", "code", "1"]
        );
        assert_eq!(rows[0][..6], ["0", "finishing", "2", "9", "0", "0s"]);
    }
}

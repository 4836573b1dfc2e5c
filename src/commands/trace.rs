//! `haft trace`.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Deserialize;

use super::table::clock;
use super::target::{RunningHaft, Target, TargetError};
use crate::log::escaped;

/// Follow connections as they come: where each goes, why, and what becomes of it
///
/// A line when a connection is delivered or refused: its client, the slot, the worker, what decided, the key, how often
/// it was passed on, and how long it took from accept. Times are UTC. It ends with Ctrl-C. It costs nothing while no
/// trace runs.
#[derive(Debug, clap::Args)]
pub(super) struct TraceCommand {
    #[command(flatten)]
    target: Target,

    /// Only of this slot
    #[arg(long, value_name = "K", value_parser = super::change::slot)]
    slot: Option<u64>,

    /// Only of this client: an address or a network, such as 10.0.0.0/8
    #[arg(long, value_name = "CIDR")]
    client: Option<String>,

    /// Only one in so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    one_in: Option<u64>,

    /// End after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// A line of JSON for each, as the page /trace has it
    #[arg(long)]
    json: bool,
}

/// A line of the page, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TraceRow {
    dropped: Option<u64>,
    unix_ms: u64,
    client: String,
    by: String,
    tag: Option<TraceTag>,
    key: String,
    slot: Option<usize>,
    moves: u64,
    took_us: u64,
    outcome: String,
    worker: Option<u64>,
    reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TraceTag {
    slot: usize,
    generation: u32,
}

impl TraceCommand {
    pub(super) fn run(self) -> ExitCode {
        match self.follow() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => super::report(Err(error)),
        }
    }

    fn follow(&self) -> Result<(), TargetError> {
        let RunningHaft { client, status } = self.target.find()?;
        if let Some(note) = &status.note {
            eprintln!("haft: {}", escaped(note));
        }
        let (mut shown, mut dropped) = (0, 0);
        client.follow(&self.path(), |text| {
            let line: TraceRow = serde_json::from_str(text).unwrap_or_default();
            match line.dropped {
                Some(now) if now > dropped => {
                    eprintln!("haft: {} connections are not shown, they were too many at once", now - dropped);
                    dropped = now;
                    true
                }
                Some(_) => true,
                None => {
                    shown += 1;
                    let text = if self.json { escaped(text) } else { described(&line) };
                    let is_read = writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()).is_ok();
                    is_read && self.count.is_none_or(|count| shown < count)
                }
            }
        })?;
        Ok(())
    }

    fn path(&self) -> String {
        let slot = self.slot.map(|slot| format!("slot={slot}"));
        let client = self.client.as_ref().map(|client| format!("client={client}"));
        let one_in = self.one_in.map(|one_in| format!("one_in={one_in}"));
        let query: Vec<String> = slot.into_iter().chain(client).chain(one_in).collect();
        format!("/trace?{}", query.join("&"))
    }
}

fn described(line: &TraceRow) -> String {
    let slot = line.slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string());
    let outcome = match (line.worker, &line.reason) {
        (Some(worker), _) => format!("slot {slot:<4} worker {worker:<6}"),
        (None, reason) => {
            format!("slot {slot:<4} {}: {}", escaped(&line.outcome), reason.as_deref().map_or("?".to_owned(), escaped))
        }
    };
    let tag = line
        .tag
        .as_ref()
        .map_or_else(String::new, |tag| format!(" of slot {}, generation {}", tag.slot, tag.generation));
    let moves = if line.moves > 0 { format!("  passed on {} times", line.moves) } else { String::new() };
    format!(
        "{}.{:03}  {:<24} {outcome}  {:>9.1} ms  by {}{tag}  key {}{moves}",
        clock(line.unix_ms / 1000),
        line.unix_ms % 1000,
        escaped(&line.client),
        line.took_us as f64 / 1000.0,
        escaped(&line.by),
        escaped(&line.key)
    )
}

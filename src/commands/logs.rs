//! `haft logs`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::client::{Client, ClientError};
use super::target::{RunningHaft, Target, TargetError};
use crate::log::escaped;

/// How often is asked for what is new.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// Show the last lines that workers wrote
///
/// haft keeps the last 16 KiB of each slot, of standard error and standard output. Of standard output it keeps nothing where
/// haft runs on a terminal with one worker, or with --prefix-output=false: then the program writes straight to the
/// terminal, and keeps its colours. Start haft with --prefix-output to have it kept there, too.
#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    #[command(flatten)]
    target: Target,

    /// Of this slot alone
    #[arg(value_name = "K", value_parser = super::change::slot)]
    slot: Option<u64>,

    /// Go on with what they write, until haft ends
    #[arg(short, long)]
    follow: bool,

    /// At most so many lines of what was written before
    #[arg(long, value_name = "N", default_value_t = 100)]
    lines: usize,
}

/// A line that a worker wrote.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct WorkerLine {
    pub number: u64,
    pub slot: usize,
    pub text: String,
}

/// The lines with a higher number.
pub(super) fn read(client: &Client, after: u64, slot: Option<u64>) -> Result<Vec<WorkerLine>, TargetError> {
    let slot = slot.map_or_else(String::new, |slot| format!("&slot={slot}"));
    let answer = client.get(&format!("/logs?after={after}{slot}"))?;
    let wrong = |why: String| TargetError::from(ClientError::Other { addr: client.addr().clone(), why });
    if !answer.status.is_success() {
        return Err(wrong(answer.body.trim_end().to_owned()));
    }
    serde_json::from_str(&answer.body).map_err(|error| wrong(format!("no lines came: {error}")))
}

impl Logs {
    pub(super) fn run(self) -> ExitCode {
        match self.show() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => super::report(Err(error)),
        }
    }

    fn show(&self) -> Result<(), TargetError> {
        let RunningHaft { client, status } = self.target.find()?;
        let mut lines = read(&client, 0, self.slot)?;
        if lines.is_empty() {
            eprintln!("haft: the workers have written nothing yet that is kept");
        }
        if status.keeps_stdout == Some(false) {
            eprintln!(
                "haft: this is standard error alone: what the program writes to standard output goes straight to the \
                 terminal that haft runs on (start haft with --prefix-output to have it here, too)"
            );
        }
        lines.drain(..lines.len().saturating_sub(self.lines));
        let mut last = 0;
        loop {
            last = lines.last().map_or(last, |line| line.number);
            if !self.print(&lines) || !self.follow {
                return Ok(());
            }
            thread::sleep(LOOK_AGAIN);
            lines = match read(&client, last, self.slot) {
                // It was followed to its end.
                Err(TargetError::Client(ClientError::Gone(_))) => return Ok(()),
                lines => lines?,
            };
        }
    }

    /// Returns whether there is still a reader.
    fn print(&self, lines: &[WorkerLine]) -> bool {
        let mark = |line: &WorkerLine| if self.slot.is_none() { format!("[w{}] ", line.slot) } else { String::new() };
        let text: String = lines.iter().map(|line| format!("{}{}\n", mark(line), escaped(&line.text))).collect();
        io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()).is_ok()
    }
}

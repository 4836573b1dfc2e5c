//! What changes a running haft: `haft reload`, `scale`, `drain`, `undrain`, `restart`, `stop`.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use super::client::ClientError;
use super::target::{RunningHaft, Target, TargetError};
use super::view::{SlotView, Status};
use crate::config::MAX_WORKERS;
use crate::log::escaped;

/// How often is looked how far something has come.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Letters of a bar.
const BAR: usize = 30;

/// Replace the workers by new ones, slot by slot, with the configuration read again
///
/// The exit code is 0 if that has begun; with --wait, if every slot has its new worker, and 1 if a new worker did not
/// become ready, which ends a reload.
#[derive(Debug, clap::Args)]
pub(super) struct ReloadCommand {
    #[command(flatten)]
    target: Target,

    /// Wait for its end, and show how far it has come
    #[arg(short, long)]
    wait: bool,
}

/// Change the number of slots, and so of workers
#[derive(Debug, clap::Args)]
pub(super) struct Scale {
    #[command(flatten)]
    target: Target,

    /// So many slots
    #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_WORKERS as u64))]
    workers: u64,

    /// Wait until each of them has a worker that is ready
    #[arg(short, long)]
    wait: bool,
}

/// Give a slot no new connections; its worker keeps what it has
#[derive(Debug, clap::Args)]
pub(super) struct DrainCommand {
    #[command(flatten)]
    target: Target,

    /// The slot
    #[arg(value_name = "K", value_parser = slot)]
    slot: u64,
}

/// Give a drained slot connections again
#[derive(Debug, clap::Args)]
pub(super) struct Undrain {
    #[command(flatten)]
    target: Target,

    /// The slot
    #[arg(value_name = "K", value_parser = slot)]
    slot: u64,
}

/// Give a slot, or all one after another, a new worker of the same version
///
/// The old worker goes on until the new one is ready, and then finishes what it has. The configuration is not read again:
/// that is what `haft reload` does.
#[derive(Debug, clap::Args)]
pub(super) struct Restart {
    #[command(flatten)]
    target: Target,

    /// The slot, or all
    #[arg(value_name = "K|all", value_parser = slot_or_all)]
    slot: Which,

    /// Wait until the new workers are ready: the exit code is 1 if one did not become ready
    #[arg(short, long)]
    wait: bool,
}

/// End haft and its workers in an orderly way, as SIGTERM does, and wait for it
#[derive(Debug, clap::Args)]
pub(super) struct StopCommand {
    #[command(flatten)]
    target: Target,

    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Slot(u64),
}

impl Which {
    fn has(self, slot: &SlotView) -> bool {
        match self {
            Self::All => true,
            Self::Slot(number) => slot.slot as u64 == number,
        }
    }
}

pub(super) fn slot(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number < MAX_WORKERS as u64);
    number.ok_or_else(|| format!("write a slot's number, from 0 to {}", MAX_WORKERS - 1))
}

fn slot_or_all(text: &str) -> Result<Which, String> {
    if text == "all" { Ok(Which::All) } else { slot(text).map(Which::Slot).map_err(|why| format!("{why}, or all")) }
}

/// Asks for a change, and prints haft's answer.
fn ask(found: &RunningHaft, path: &str) -> Result<(), Failure> {
    let answer = found.client.post(path).map_err(TargetError::from)?;
    let text = escaped(&said(&answer.body));
    if !answer.status.is_success() {
        return Err(Failure::Denied(text));
    }
    println!("{text}");
    Ok(())
}

/// The one line of an answer.
pub(super) fn said(body: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        #[serde(alias = "error")]
        message: String,
    }
    serde_json::from_str::<Said>(body).map_or_else(|_| body.trim_end().to_owned(), |said| said.message)
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It is not known which haft is meant, or it does not answer.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// haft's answer has the reason.
    #[error("{0}")]
    Denied(String),
}

fn end(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Target(error)) => super::report(Err(error)),
        Err(error) => {
            eprintln!("haft: {error}");
            ExitCode::FAILURE
        }
    }
}

impl ReloadCommand {
    pub(super) fn run(self) -> ExitCode {
        end(self.target.find().map_err(Failure::from).and_then(|found| {
            ask(&found, "/reload")?;
            if !self.wait {
                return Ok(());
            }
            let mut bar = Bar::new();
            loop {
                let status = Status::of(&found.client)?;
                let done = status.slots.iter().filter(|slot| slot.generation == status.generation).count();
                bar.show("reloading", done, status.slots.len());
                let reload = status.reload.unwrap_or_default();
                match reload.state.as_str() {
                    "under_way" => thread::sleep(LOOK_AGAIN),
                    "done" => {
                        bar.end();
                        println!("{}", escaped(&reload.description));
                        return Ok(());
                    }
                    _ => {
                        bar.end();
                        return Err(Failure::Denied(escaped(&reload.description)));
                    }
                }
            }
        }))
    }
}

impl Scale {
    pub(super) fn run(self) -> ExitCode {
        end(self.target.find().map_err(Failure::from).and_then(|found| {
            ask(&found, &format!("/scale?workers={}", self.workers))?;
            if self.wait { self.wait_for_it(&found) } else { Ok(()) }
        }))
    }
}

impl Scale {
    fn wait_for_it(&self, found: &RunningHaft) -> Result<(), Failure> {
        let mut bar = Bar::new();
        loop {
            let status = Status::of(&found.client)?;
            let ready = status.slots.iter().filter(|slot| slot.state == "ready").count();
            bar.show("ready", ready, status.slots.len());
            // Another change may have come in between.
            if ready == status.slots.len() || status.slots.len() as u64 != self.workers {
                return Ok(());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

impl DrainCommand {
    pub(super) fn run(self) -> ExitCode {
        end(self
            .target
            .find()
            .map_err(Failure::from)
            .and_then(|found| ask(&found, &format!("/drain?slot={}", self.slot))))
    }
}

impl Undrain {
    pub(super) fn run(self) -> ExitCode {
        let found = self.target.find().map_err(Failure::from);
        end(found.and_then(|found| ask(&found, &format!("/undrain?slot={}", self.slot))))
    }
}

impl Restart {
    pub(super) fn run(self) -> ExitCode {
        end(self.target.find().map_err(Failure::from).and_then(|found| {
            ask(
                &found,
                &match self.slot {
                    Which::All => "/restart".to_owned(),
                    Which::Slot(slot) => format!("/restart?slot={slot}"),
                },
            )?;
            if self.wait { self.wait_for_it(&found) } else { Ok(()) }
        }))
    }

    fn wait_for_it(&self, found: &RunningHaft) -> Result<(), Failure> {
        let before: Vec<&SlotView> = found.status.slots.iter().filter(|slot| self.slot.has(slot)).collect();
        let mut bar = Bar::new();
        loop {
            let status = Status::of(&found.client)?;
            let now: Vec<&SlotView> = status.slots.iter().filter(|slot| self.slot.has(slot)).collect();
            let waiting = now.iter().filter(|slot| slot.restarting).count();
            bar.show("restarting", now.len() - waiting, now.len());
            if waiting > 0 {
                thread::sleep(LOOK_AGAIN);
                continue;
            }
            bar.end();
            let same =
                before.iter().filter(|old| now.iter().any(|new| (new.slot, new.worker) == (old.slot, old.worker)));
            let kept: Vec<String> = same.map(|slot| slot.slot.to_string()).collect();
            if kept.is_empty() {
                return Ok(());
            }
            let text = "the new worker did not become ready, the old one stays (see haft's log): slot";
            return Err(Failure::Denied(format!("{text} {}", kept.join(", "))));
        }
    }
}

impl StopCommand {
    pub(super) fn run(self) -> ExitCode {
        end(self.target.find().map_err(Failure::from).and_then(|found| {
            // One that has nothing to finish may be gone before it has answered.
            match ask(&found, "/stop") {
                Err(Failure::Target(TargetError::Client(ClientError::Other { .. }))) | Ok(()) => {}
                Err(error) => return Err(error),
            }
            if !self.no_wait {
                Self::wait_for_the_end(&found);
            }
            Ok(())
        }))
    }
}

impl StopCommand {
    fn wait_for_the_end(found: &RunningHaft) {
        let slots = found.status.slots.len();
        let mut bar = Bar::new();
        loop {
            match Status::of(&found.client) {
                Ok(status) if status.pid == found.status.pid => {
                    let gone = status.slots.iter().filter(|slot| slot.state == "gone").count();
                    bar.show("stopping", gone, slots);
                }
                // Another has taken its place already.
                Ok(_) | Err(TargetError::Client(ClientError::Gone(_) | ClientError::NotPermitted(_))) => return,
                // It is about to end, or is late.
                Err(_) => {}
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

/// How far something has come: one line that is written over, on a terminal; elsewhere nothing.
struct Bar {
    is_terminal: bool,
    is_shown: bool,
}

impl Bar {
    fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), is_shown: false }
    }

    fn show(&mut self, what: &str, done: usize, of: usize) {
        if self.is_terminal {
            eprint!("\r\x1b[K{}", bar(what, done, of));
            io::stderr().flush().ok();
            self.is_shown = true;
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            eprintln!();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}

fn bar(what: &str, done: usize, of: usize) -> String {
    let full = (BAR * done.min(of)).checked_div(of).unwrap_or(BAR);
    format!("{what} [{}{}] {done} of {of} slots", "#".repeat(full), "-".repeat(BAR - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_things_are_done() {
        assert_eq!(bar("x", 0, 3), format!("x [{}] 0 of 3 slots", "-".repeat(30)));
        assert_eq!(bar("x", 1, 3), format!("x [{}{}] 1 of 3 slots", "#".repeat(10), "-".repeat(20)));
        assert_eq!(bar("x", 3, 3), format!("x [{}] 3 of 3 slots", "#".repeat(30)));
        assert_eq!(bar("x", 0, 0), format!("x [{}] 0 of 0 slots", "#".repeat(30)));
    }

    #[test]
    fn a_slot_is_a_number_that_there_can_be() {
        assert_eq!((slot_or_all("all"), slot_or_all("0")), (Ok(Which::All), Ok(Which::Slot(0))));
        for wrong in ["", "-1", "1024", "x", "ALL"] {
            assert!(slot_or_all(wrong).expect_err(wrong).contains("from 0 to 1023, or all"), "{wrong}");
        }
    }
}

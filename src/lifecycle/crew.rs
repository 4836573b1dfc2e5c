//! The processes of the workers: starting them, signalling them, learning of their end.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::guardian::Guardian;
use super::output::{self, Output, SharedOutput, Target};
use super::pool::WorkerId;
use crate::route::Slot;
use crate::sys::process::{Inherited, Launch, launch, signal_group};

/// How long the end of a dead worker's output is waited for: what it has started may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);

/// Most outputs of failed starts that are remembered: a slot may fail for ever, and each time in other words.
const MOST_SHOWN: usize = 64;

/// A worker's process has ended.
#[derive(Debug)]
pub struct Exit {
    /// Which worker.
    pub worker: WorkerId,
    /// How; an error if that could not be learnt.
    pub status: io::Result<ExitStatus>,
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program.
    #[error("{0}: no such program; check its name, or give its path")]
    NotFound(String),
    /// The program may not be run.
    #[error("{0}: permission denied; is it an executable file (`chmod +x`)?")]
    NotPermitted(String),
    /// Fork or exec failed for another reason.
    #[error("{program}: cannot be started: {source}")]
    Other {
        /// The program.
        program: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

#[derive(Debug)]
struct Member {
    pid: u32,
    /// Nothing but a signal makes it end.
    by_signal: bool,
    output: SharedOutput,
}

/// The living processes.
#[derive(Debug)]
pub struct Crew {
    /// Whether each line of output gets the worker's slot in front.
    prefix_output: bool,
    members: BTreeMap<WorkerId, Member>,
    exits: mpsc::UnboundedSender<Exit>,
    /// Outputs of failed starts that people have seen, at most [`MOST_SHOWN`].
    shown: Vec<String>,
    anyone_spoke: bool,
    /// The first worker, while it is neither ready nor dead: what it writes is seen as it is written.
    speaker: Option<WorkerId>,
    /// Outputs of starts that failed meanwhile: to be shown if the speaker's turns out to be another.
    pending: Vec<(String, Vec<u8>)>,
    /// Ends the processes when this one has died, if there is one.
    pub guardian: Option<Guardian>,
}

impl Crew {
    /// Nobody yet; ends of processes will come out of the receiver.
    pub fn new(prefix_output: bool, guardian: Option<Guardian>) -> (Self, mpsc::UnboundedReceiver<Exit>) {
        let (exits, receiver) = mpsc::unbounded_channel();
        (
            Self {
                prefix_output,
                members: BTreeMap::new(),
                exits,
                shown: Vec::new(),
                anyone_spoke: false,
                speaker: None,
                pending: Vec::new(),
                guardian,
            },
            receiver,
        )
    }

    /// Starts a worker; `command` is never empty. A program of [`Inherited::Listeners`] ends at a signal alone. Must be called within a `LocalSet`.
    pub fn start(
        &mut self,
        worker: WorkerId,
        slot: Slot,
        command: &[String],
        environment: &[(&str, String)],
        inherited: Inherited<'_>,
    ) -> Result<u32, StartError> {
        let by_signal = matches!(inherited, Inherited::Listeners(_));
        let registration = self.guardian.as_ref().map(|guardian| guardian.registration(by_signal));
        let pipe_stdout = self.prefix_output;
        let child = launch(&Launch { command, environment, inherited, pipe_stdout, registration });
        let mut child = child.map_err(|source| start_error(command, source))?;
        let pid = child.id().unwrap_or(0);
        let output = if self.anyone_spoke { Output::held() } else { Output::speaking() };
        if !std::mem::replace(&mut self.anyone_spoke, true) {
            self.speaker = Some(worker);
        }
        let relays = self.relays(&mut child, slot, &output);
        self.members.insert(worker, Member { pid, by_signal, output });
        let exits = self.exits.clone();
        tokio::task::spawn_local(async move {
            let status = child.wait().await;
            for relay in relays {
                tokio::time::timeout(OUTPUT_GRACE, relay).await.ok();
            }
            // The receiver lives as long as the master.
            exits.send(Exit { worker, status }).ok();
        });
        Ok(pid)
    }

    /// Starts another guardian if the last one has been ended. Says whether it did.
    pub fn keep_guarded(&mut self) -> bool {
        let Some(guardian) = self.guardian.as_mut().filter(|guardian| guardian.is_gone()) else { return false };
        let workers = self.members.values().map(|member| (member.pid, member.by_signal));
        match guardian.replace(workers) {
            Ok(()) => tracing::warn!("haft's guardian process was ended by somebody else: another is started"),
            Err(error) => tracing::error!(%error, "haft's guardian process was ended, and another cannot be started"),
        }
        true
    }

    fn relays(&self, child: &mut Child, slot: Slot, output: &SharedOutput) -> Vec<JoinHandle<()>> {
        let prefix = self.prefix_output.then(|| format!("[w{slot}] "));
        let mut relays = Vec::new();
        if let Some(pipe) = child.stderr.take() {
            let relay = output::relay(pipe, Target::Stderr, prefix.clone(), output.clone());
            relays.push(tokio::task::spawn_local(relay));
        }
        if let Some(pipe) = child.stdout.take() {
            // Standard output is never held back: it is a program's product, not its complaint.
            relays.push(tokio::task::spawn_local(output::relay(pipe, Target::Stdout, prefix, Output::speaking())));
        }
        relays
    }

    /// The worker is ready: what it wrote until now is passed on.
    pub fn ready(&mut self, worker: WorkerId) {
        self.shown.clear();
        self.speaker.take_if(|speaker| *speaker == worker);
        self.show_pending();
        self.show(worker);
    }

    fn remember(&mut self, alike: String) {
        if self.shown.len() == MOST_SHOWN {
            self.shown.remove(0);
        }
        self.shown.push(alike);
    }

    /// Shows the outputs of failed starts that are not what the first worker wrote.
    fn show_pending(&mut self) {
        if self.speaker.is_some() {
            return;
        }
        for (alike, bytes) in std::mem::take(&mut self.pending) {
            if !self.shown.contains(&alike) {
                self.remember(alike);
                write_now(&bytes);
            }
        }
    }

    fn show(&self, worker: WorkerId) {
        let held = self.members.get(&worker).and_then(|member| member.output.borrow_mut().release());
        if let Some(bytes) = held.filter(|bytes| !bytes.is_empty()) {
            write_now(&bytes);
        }
    }

    /// The worker's process has ended. If it never was ready, what it wrote is shown unless the same was shown before.
    /// Says whether it wrote anything.
    pub fn ended(&mut self, worker: WorkerId, was_ready: bool) -> bool {
        let Some(member) = self.members.get(&worker) else { return false };
        let tail = member.output.borrow().tail().collect::<Vec<_>>().join("\n");
        if !was_ready {
            let alike = output::likeness(&tail);
            if self.speaker.is_some_and(|speaker| speaker != worker) {
                let held = member.output.borrow_mut().release().unwrap_or_default();
                self.pending.push((alike, held));
            } else if self.shown.contains(&alike) {
                member.output.borrow_mut().release();
            } else {
                self.remember(alike);
            }
        }
        self.speaker.take_if(|speaker| *speaker == worker);
        self.show_pending();
        self.show(worker);
        self.members.remove(&worker);
        !tail.is_empty()
    }

    /// The worker's process id.
    pub fn pid(&self, worker: WorkerId) -> Option<u32> {
        self.members.get(&worker).map(|member| member.pid)
    }

    /// Sends a signal to a worker and to what it has started.
    pub fn signal(&self, worker: WorkerId, signal: Signal) {
        if let Some(member) = self.members.get(&worker) {
            signal_group(member.pid, signal);
        }
    }

    /// Kills everybody.
    pub fn kill_all(&mut self) {
        self.members.values().for_each(|member| signal_group(member.pid, Signal::SIGKILL));
        self.speaker = None;
        self.show_pending();
    }
}

/// Writes to standard error at once, as the log does: what is held back is short, and must be seen before the end.
fn write_now(bytes: &[u8]) {
    io::stderr().write_all(bytes).ok();
}

fn start_error(command: &[String], source: io::Error) -> StartError {
    let program = command.first().cloned().unwrap_or_default();
    match source.kind() {
        io::ErrorKind::NotFound => StartError::NotFound(program),
        io::ErrorKind::PermissionDenied => StartError::NotPermitted(program),
        _ => StartError::Other { program, source },
    }
}

/// How a process ended, for people: `exit code 1`, `signal SIGKILL`.
pub fn describe(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal().map(Signal::try_from)) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(Ok(signal))) => format!("signal {signal}"),
            _ => status.to_string(),
        },
        Err(error) => format!("unknown ({error})"),
    }
}

/// Whether SIGKILL ended it.
pub fn was_killed(status: &io::Result<ExitStatus>) -> bool {
    status.as_ref().is_ok_and(|status| status.signal() == Some(Signal::SIGKILL as i32))
}

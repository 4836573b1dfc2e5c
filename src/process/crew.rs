//! The processes of the workers: starting them, signalling them, learning of their end.

mod ending;
mod sight;
mod signalling;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use self::ending::{describe, was_killed};
pub use self::sight::{CpuTime, Sight};
use super::guardian::Guardian;
use super::lines::SharedLines;
use super::output::{self, Output, OutputRelay, OutputStyle, SharedOutput};
use super::program::script;
use super::remains::Remains;
use crate::ids::WorkerId;
use crate::log::{self, OutputQueue, STDOUT};
use crate::route::Slot;
use crate::sys::account::Account;
use crate::sys::process::{Inherited, Launch, launch, signal_group};
use crate::sys::{pidfd, poller};

/// How long the end of a dead worker's output is waited for: what it has started may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);

/// How long what has started the program may go on without it, and then again after SIGTERM.
const WRAPPER_GRACE: Duration = Duration::from_secs(1);

/// Most outputs of failed starts that are remembered: a slot may fail for ever, and each time in other words.
const MAX_SHOWN: usize = 64;

/// A worker's process has ended.
#[derive(Debug)]
pub struct Exit {
    /// Which worker.
    pub worker: WorkerId,
    /// How; an error if that could not be learnt.
    pub status: io::Result<ExitStatus>,
    /// What its first process had used of CPUs by then, and what those that this has waited for; if it is known.
    pub cpu: Option<(Duration, Duration)>,
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
    /// A script is named instead of what runs it.
    #[error(
        "{program}: it cannot be run by itself; name what runs it: haft -- {command} (or make it executable, `chmod +x`)"
    )]
    Script {
        /// What was named.
        program: String,
        /// What was meant, as it seems.
        command: String,
    },
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
struct WorkerProcess {
    pid: u32,
    slot: Slot,
    /// Nothing but a signal makes it end.
    by_signal: bool,
    output: SharedOutput,
    /// It was sent SIGTERM, with everything it had started.
    asked: bool,
    /// Whether its process may still be there.
    is_there: Rc<Cell<bool>>,
    /// Where its figures are: of the process that serves.
    sight: Sight,
}

/// What is to be started for a worker.
#[derive(Debug)]
pub struct LaunchOrder<'a> {
    /// Program and arguments; never empty.
    pub command: &'a [String],
    /// Added to haft's own environment.
    pub environment: &'a [(&'static str, String)],
    /// The same, except that haft's own are not changed.
    pub variables: &'a [(String, String)],
    /// Its soft limit on descriptors, if it is not the one that haft was started with.
    pub descriptors: Option<u64>,
    /// What it inherits beside the standard streams.
    pub inherited: Inherited<'a>,
    /// See [`Launch`].
    pub outlives_master: bool,
    /// What standard error is searched for until the worker is ready.
    pub sought: Option<&'a str>,
}

/// The living processes.
#[derive(Debug)]
pub struct Processes {
    /// What becomes of their output.
    output: OutputStyle,
    /// The soft limit on descriptors that haft itself was started with.
    descriptors: u64,
    members: BTreeMap<WorkerId, WorkerProcess>,
    exits: mpsc::UnboundedSender<Exit>,
    /// Outputs of failed starts that people have seen, at most [`MAX_SHOWN`].
    shown: Vec<String>,
    anyone_spoke: bool,
    /// The first worker, while it is neither ready nor dead: what it writes is seen as it is written.
    speaker: Option<WorkerId>,
    /// Outputs of starts that failed meanwhile, each once and at most [`MAX_SHOWN`]: to be shown if the speaker's
    /// turns out to be another.
    pending: Vec<(String, Slot, Vec<u8>)>,
    /// The last lines of all that they wrote.
    pub lines: SharedLines,
    /// What dead ones have left behind.
    pub remains: Remains,
    /// Ends the processes when this one has died, if there is one.
    pub guardian: Option<Guardian>,
    /// The user that workers run as, if it is not this process's.
    account: Option<Account>,
}

/// What stands before each line of a slot's worker.
fn mark(slot: Slot, colourful: bool) -> String {
    // The six colours that are legible on black and on white, as ECMA-48 numbers them (SGR 31 to 36).
    let colour = 31 + slot.index() % 6;
    if colourful { format!("\x1b[{colour}m[w{slot}]\x1b[0m ") } else { format!("[w{slot}] ") }
}

impl Processes {
    /// No process yet; the receiver reports ends of processes. `descriptors`: the soft limit on them for workers;
    /// `account`: the user that they run as.
    pub fn new(
        output: OutputStyle,
        descriptors: u64,
        guardian: Option<Guardian>,
        account: Option<Account>,
    ) -> (Self, mpsc::UnboundedReceiver<Exit>) {
        let (exits, receiver) = mpsc::unbounded_channel();
        (
            Self {
                output,
                descriptors,
                members: BTreeMap::new(),
                exits,
                shown: Vec::new(),
                anyone_spoke: false,
                speaker: None,
                pending: Vec::new(),
                lines: SharedLines::default(),
                remains: Remains::default(),
                guardian,
                account,
            },
            receiver,
        )
    }

    /// Starts a worker. A program of [`Inherited::Listeners`] ends at a signal alone. Must be called within a
    /// `LocalSet`.
    pub fn start(&mut self, worker: WorkerId, slot: Slot, order: &LaunchOrder<'_>) -> Result<u32, StartError> {
        let LaunchOrder { command, environment, inherited, outlives_master, .. } = *order;
        let descriptors = order.descriptors.unwrap_or(self.descriptors);
        let by_signal = matches!(inherited, Inherited::Listeners(_));
        let account = self.account.as_ref();
        let variables = order.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let own = account.into_iter().flat_map(own_variables);
        // Each name once: the last one counts.
        let environment: BTreeMap<_, _> = own.chain(variables).chain(environment.iter().cloned()).collect();
        let environment: Vec<_> = environment.into_iter().collect();
        let child = launch(&Launch {
            command,
            environment: &environment,
            account,
            descriptors,
            inherited,
            pipe_stdout: self.output.has_stdout,
            outlives_master,
            registration: self.guardian.as_ref().map(|guardian| guardian.registration(by_signal)),
        });
        let mut child = child.map_err(|source| start_error(command, source))?;
        let pid = child.id().unwrap_or(0);
        let output = if self.anyone_spoke { Output::held() } else { Output::speaking() };
        output.borrow_mut().search_for(order.sought);
        if !std::mem::replace(&mut self.anyone_spoke, true) {
            self.speaker = Some(worker);
        }
        let relays = self.relays(&mut child, slot, &output);
        let is_there = Rc::new(Cell::new(true));
        self.members.insert(
            worker,
            WorkerProcess {
                sight: Sight::new(pid),
                pid,
                slot,
                by_signal,
                output,
                asked: false,
                is_there: is_there.clone(),
            },
        );
        let exits = self.exits.clone();
        tokio::task::spawn_local(async move {
            let (status, cpu) = sight::end(&mut child, pid).await;
            is_there.set(false);
            for relay in relays {
                tokio::time::timeout(OUTPUT_GRACE, relay).await.ok();
            }
            // The receiver lives as long as the master.
            exits.send(Exit { worker, status, cpu }).ok();
        });
        Ok(pid)
    }

    /// The process that serves is this one. If it is not the worker's first, what started it is to end with it: a
    /// worker of which only a wrapper is left (nodemon waits for a change of a file then) does nothing any more.
    pub fn serves(&mut self, worker: WorkerId, pid: u32) {
        let Some(member) = self.members.get_mut(&worker).filter(|member| member.pid != pid) else { return };
        member.sight.pid = pid;
        // Without it, on a kernel before 5.3, such a worker is found when it is next spoken to.
        let Ok(watched) = pidfd::open(pid).and_then(poller::watch) else { return };
        let (leader, is_there) = (member.pid, member.is_there.clone());
        tokio::task::spawn_local(async move {
            watched.readable().await.ok();
            for signal in [Signal::SIGTERM, Signal::SIGKILL] {
                tokio::time::sleep(WRAPPER_GRACE).await;
                if !is_there.get() {
                    return;
                }
                tracing::info!(worker = worker.0, pid, "the program has ended, and what started it has not: {signal}");
                signal_group(leader, signal);
            }
        });
    }

    /// Starts another guardian if the last one was ended. Returns whether it did.
    pub fn keep_guarded(&mut self) -> bool {
        let Some(guardian) = self.guardian.as_mut().filter(|guardian| guardian.is_gone()) else { return false };
        let workers = self.members.values().map(|member| (member.pid, member.by_signal));
        match guardian.replace(workers) {
            Ok(()) => tracing::warn!("haft's guardian process was ended from outside: another is started"),
            Err(error) => tracing::error!(%error, "haft's guardian process was ended, and another cannot be started"),
        }
        true
    }

    fn relays(&self, child: &mut Child, slot: Slot, output: &SharedOutput) -> Vec<JoinHandle<()>> {
        let relay = |to: &'static OutputQueue, output| OutputRelay {
            slot,
            to,
            prefix: self.output.is_marked.then(|| mark(slot, to.is_colourful())),
            output,
            lines: self.lines.clone(),
        };
        let mut relays = Vec::new();
        if let Some(pipe) = child.stderr.take() {
            relays.push(tokio::task::spawn_local(relay(log::queue(), output.clone()).run(pipe)));
        }
        if let Some(pipe) = child.stdout.take() {
            // Standard output is never held back: it is a program's product, not its complaint.
            relays.push(tokio::task::spawn_local(relay(&STDOUT, Output::speaking()).run(pipe)));
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
        if self.shown.len() == MAX_SHOWN {
            self.shown.remove(0);
        }
        self.shown.push(alike);
    }

    /// Shows the outputs of failed starts that are not what the first worker wrote.
    fn show_pending(&mut self) {
        if self.speaker.is_some() {
            return;
        }
        for (alike, slot, bytes) in std::mem::take(&mut self.pending) {
            if !self.shown.contains(&alike) {
                self.remember(alike);
                log::queue().push_output(slot, &bytes);
            }
        }
    }

    fn show(&self, worker: WorkerId) {
        let Some(member) = self.members.get(&worker) else { return };
        let held = member.output.borrow_mut().release();
        if let Some(bytes) = held.filter(|bytes| !bytes.is_empty()) {
            log::queue().push_output(member.slot, &bytes);
        }
    }

    /// The worker's process has ended. If it never was ready, what it wrote is shown unless the same was shown before.
    /// Returns whether it wrote anything.
    pub fn ended(&mut self, worker: WorkerId, was_ready: bool) -> bool {
        let Some(member) = self.members.get(&worker) else { return false };
        let tail = member.output.borrow().tail().collect::<Vec<_>>().join("\n");
        if !was_ready {
            let alike = output::likeness(&tail);
            if self.speaker.is_some_and(|speaker| speaker != worker) {
                let held = member.output.borrow_mut().release().unwrap_or_default();
                let is_new = self.pending.iter().all(|(known, ..)| *known != alike);
                if is_new && self.pending.len() == MAX_SHOWN {
                    tracing::warn!(worker = worker.0, "what it wrote is not shown: {MAX_SHOWN} others wait to be");
                } else if is_new {
                    self.pending.push((alike, member.slot, held));
                }
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

    /// The worker's process has ended: what it has left behind is to end, too, within this time.
    pub fn bury(&mut self, worker: WorkerId, within: Duration) {
        if let Some(member) = self.members.get(&worker) {
            self.remains.add(member.pid, !member.asked, within, Instant::now());
        }
    }

    /// What was searched for in what the worker wrote before it was ready, if it stood there.
    pub fn sought(&self, worker: WorkerId) -> Option<String> {
        self.members.get(&worker).and_then(|member| member.output.borrow().sought().map(str::to_owned))
    }

    /// The worker's process id.
    pub fn pid(&self, worker: WorkerId) -> Option<u32> {
        self.members.get(&worker).map(|member| member.pid)
    }

    /// Whether haft sees what workers write to standard output: else they write to its own.
    pub fn keeps_stdout(&self) -> bool {
        self.output.has_stdout
    }

    /// The workers whose processes are there, or whose ends are not known yet.
    pub fn workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.members.keys().copied()
    }

    /// Whether a process is one of these.
    pub fn has(&self, pid: u32) -> bool {
        self.members.values().any(|member| member.pid == pid)
    }
}

/// What a login would set: programs look there for their files.
fn own_variables(account: &Account) -> [(&str, String); 3] {
    let home = account.home.display().to_string();
    [("HOME", home), ("USER", account.name.clone()), ("LOGNAME", account.name.clone())]
}

fn start_error(command: &[String], source: io::Error) -> StartError {
    let program = command.first().cloned().unwrap_or_default();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            if let Some(command) = script::command_for(&program) =>
        {
            StartError::Script { program, command }
        }
        io::ErrorKind::NotFound => StartError::NotFound(program),
        io::ErrorKind::PermissionDenied => StartError::NotPermitted(program),
        _ => StartError::Other { program, source },
    }
}

#[cfg(test)]
mod tests;

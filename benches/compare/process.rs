//! Processes: starting and ending them, and what the kernel knows of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Outcome;

/// How long a program may take to end.
const TO_END: Duration = Duration::from_secs(10);
/// How often a state is looked at that cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The programs that run now, with their temporary folders: they end with this process, also when a signal ends it.
static RUNNING: LazyLock<Mutex<BTreeMap<i32, PathBuf>>> = LazyLock::new(Mutex::default);

/// Looks until it is so, or the time is over. Gives whether it is so.
pub fn until(within: Duration, mut so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + within;
    loop {
        if so() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Ends everything and this process on SIGTERM, SIGINT and SIGHUP.
pub fn end_on_signals() -> Outcome<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
            let [Ok(mut term), Ok(mut int), Ok(mut hup)] = kinds.map(signal) else { return };
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, _ = hup.recv() => {} }
            let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            for root in running.keys() {
                for pid in [*root].into_iter().chain(descendants(*root)) {
                    send(pid, Signal::SIGKILL).ok();
                }
            }
            for folder in running.values() {
                fs::remove_dir_all(folder).ok();
            }
            std::process::exit(130);
        });
    });
    Ok(())
}

/// A program that was started here. It is ended when this is dropped, with all processes that it has started.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it writes goes to a file of that name in the folder, which is a temporary one.
    pub fn start(folder: &Path, name: &str, command: &mut Command) -> Outcome<Self> {
        let log = folder.join(name);
        let output = fs::File::create(&log)?;
        let spawned =
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).current_dir(folder).spawn();
        let child = spawned.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).insert(child.id() as i32, folder.to_owned());
        Ok(Self { child, log })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it has written.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its exit code if it has ended; -1 when a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().ok()??;
        Some(status.code().unwrap_or(-1))
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) -> bool {
        if self.ended().is_none() {
            send(self.pid(), signal).ok();
        }
        until(TO_END, || self.ended().is_some())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let family: Vec<_> =
                descendants(self.pid()).into_iter().filter_map(|pid| Some((pid, born(pid)?))).collect();
            send(self.pid(), Signal::SIGCONT).ok();
            if !self.end(Signal::SIGTERM) {
                self.child.kill().ok();
                self.child.wait().ok();
            }
            let lives = |(pid, birth): &(i32, u64)| born(*pid) == Some(*birth);
            until(TO_END, || !family.iter().any(lives));
            for (pid, _) in family.iter().filter(|process| lives(process)) {
                send(*pid, Signal::SIGKILL).ok();
            }
        }
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid());
    }
}

pub fn send(pid: i32, signal: Signal) -> Outcome<()> {
    Ok(kill(Pid::from_raw(pid), signal)?)
}

/// All processes below this one.
pub fn descendants(root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for task in tasks(pid).unwrap_or_default() {
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    found.split_off(1)
}

fn tasks(pid: i32) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        found.push(task?.path());
    }
    Ok(found)
}

/// Field `index` of /proc/PID/stat, counted from the state (0), which comes after the name.
fn stat(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split_whitespace().nth(index).map(str::to_owned)
}

/// When it was started, in ticks since boot (starttime in proc(5)): with the pid it names one process for ever. None if
/// there is none, or it is a zombie.
fn born(pid: i32) -> Option<u64> {
    if matches!(stat(pid, 0)?.as_str(), "Z" | "X") { None } else { stat(pid, 19)?.parse().ok() }
}

/// Whether it stands still (SIGSTOP).
pub fn is_stopped(pid: i32) -> bool {
    stat(pid, 0).as_deref() == Some("T")
}

/// Time on a CPU of processes with all their threads, in nanoseconds: the first number of schedstat.
pub fn cpu(pids: &[i32]) -> Outcome<u64> {
    let mut total = 0;
    for pid in pids {
        for task in tasks(*pid)? {
            let schedstat = fs::read_to_string(task.join("schedstat"))?;
            total += schedstat.split_whitespace().next().ok_or("empty schedstat")?.parse::<u64>()?;
        }
    }
    Ok(total)
}

/// Memory of processes, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident; what processes share counts in each.
    pub rss: u64,
    /// Resident; what processes share is divided among them.
    pub pss: u64,
}

pub fn memory(pids: &[i32]) -> Outcome<Memory> {
    let mut sum = Memory::default();
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let of = |name: &str| -> Outcome<u64> {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)).ok_or("a field of smaps_rollup")?;
            Ok(line.trim().trim_end_matches(" kB").parse()?)
        };
        sum.rss += of("Rss:")?;
        sum.pss += of("Pss:")?;
    }
    Ok(sum)
}

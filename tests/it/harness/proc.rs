//! What the kernel says of a process (/proc), and signals to it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Sends a signal to a process of the test's own. One that is gone is no error.
pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).ok();
}

/// Whether a process is there and not a zombie.
pub fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z")
}

/// Whether a process waits for something to happen.
pub fn is_sleeping(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] == "S")
}

/// Whether a process is stopped by a signal.
pub fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] == "T")
}

/// The processor time that a process has used.
pub fn cpu_time(pid: u32) -> Duration {
    // proc_pid_stat(5): utime and stime are the 14th and 15th field, in ticks of 10 ms.
    let fields = stat(pid).expect("a process");
    let ticks = [11, 12].map(|at: usize| fields[at].parse::<u64>().expect("ticks"));
    Duration::from_millis((ticks[0] + ticks[1]) * 10)
}

/// The fields of /proc/PID/stat from the third on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// The open descriptors of a process: number, and what it is.
pub fn descriptors(pid: u32) -> BTreeMap<u32, String> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    let entries = folder.filter_map(|entry| {
        let entry = entry.ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, target.display().to_string()))
    });
    entries.collect()
}

/// The children of a process, those included that have ended and whose end was not taken.
pub fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

//! What a process uses of this host, as `/proc` shows it (proc_pid_stat(5)).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory that are resident, shared ones counted.
    pub resident_bytes: u64,
    /// Time on a CPU since it began, in user and kernel mode.
    pub cpu: Duration,
    /// Its threads.
    pub threads: u64,
    /// Its open descriptors. None: it is another user's, and this process may not look.
    pub descriptors: Option<u64>,
}

/// What a process uses now; `None` if it has ended. It reads two files of `/proc`; before Linux 6.2 one of them is as
/// long as the process has descriptors.
///
/// # Errors
///
/// If `/proc` is not mounted, or hides other users' processes.
pub fn of(pid: u32) -> io::Result<Option<Usage>> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let usage = parse(&stat, ticks_a_second(), page_size()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(Usage { descriptors: descriptors(pid), ..usage }))
}

/// Time on a CPU that a process has used, ended or not as long as its end is not taken (wait(2)): its own, and that of the
/// processes that it has waited for and of theirs. `None`: it is gone, or `/proc` tells nothing.
pub fn cpu_times(pid: u32) -> Option<(Duration, Duration)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let tick = ticks_a_second();
    Some((cpu(&stat, 14, tick)?, cpu(&stat, 16, tick)?))
}

/// Processes that are looked at of one worker.
const MAX_PROCESSES: usize = 64;

/// Bytes of resident memory of the largest process among this one and those that it has started, as far as they are its
/// children still (`CONFIG_PROC_CHILDREN`); `None` if it has ended or `/proc` does not show it.
pub fn resident_of_largest(pid: u32) -> Option<u64> {
    let (mut found, mut next, mut largest) = (vec![pid], 0, None);
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        largest = largest.max(stat.and_then(|stat| Some(parse(&stat, 1, page_size())?.resident_bytes)));
        let room = MAX_PROCESSES - found.len();
        found.extend(children(pid).into_iter().take(room));
    }
    largest
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

fn descriptors(pid: u32) -> Option<u64> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder).ok()?;
    match fs::metadata(&folder).ok()?.size() {
        0 => Some(entries.count() as u64),
        count => Some(count),
    }
}

/// Behind the name, which may hold anything, the third field of the file is the first.
fn parse(stat: &str, ticks_a_second: u64, page_size: u64) -> Option<Usage> {
    let cpu = cpu(stat, 14, ticks_a_second)?;
    let resident_bytes = field(stat, 24)?.checked_mul(page_size)?;
    Some(Usage { resident_bytes, cpu, threads: field(stat, 20)?, descriptors: None })
}

fn field(stat: &str, at: usize) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(at - 3)?.parse().ok()
}

/// The time in user mode that stands at `first`, and that in kernel mode behind it.
fn cpu(stat: &str, first: usize, ticks_a_second: u64) -> Option<Duration> {
    let ticks = field(stat, first)?.checked_add(field(stat, first + 1)?)?;
    let rest = Duration::from_secs(1) * (ticks % ticks_a_second) as u32 / ticks_a_second as u32;
    Some(Duration::from_secs(ticks / ticks_a_second) + rest)
}

fn ticks_a_second() -> u64 {
    sysconf(libc::_SC_CLK_TCK).unwrap_or(100)
}

fn page_size() -> u64 {
    sysconf(libc::_SC_PAGESIZE).unwrap_or(4096)
}

fn sysconf(name: libc::c_int) -> Option<u64> {
    // SAFETY: it takes a number and yields one.
    u64::try_from(unsafe { libc::sysconf(name) }).ok().filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_program_is_called() {
        let line = "4711 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 75 0 0 20 0 12 0 100 1000000 250 18446744073709551615";
        let usage = parse(line, 100, 4096).expect("a line");
        assert_eq!((usage.resident_bytes, usage.cpu, usage.threads), (250 * 4096, Duration::from_millis(2250), 12));
        for wrong in ["", "1 (x) S", "1 (x", "1 (x) S 1 2 3 4 5 6 7 8 9 10 x 75 0 0 20 0 12 0 1 1 1"] {
            assert_eq!(parse(wrong, 100, 4096), None, "{wrong}");
        }
    }

    #[test]
    fn the_time_of_a_process_that_has_ended_is_known_until_its_end_is_taken() {
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let mut shell = std::process::Command::new("sh").args(["-c", "sh -c \"$0\"; true", busy]).spawn().expect("sh");
        let id = i32::try_from(shell.id()).expect("a number");
        let ended = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(id)), ended).expect("it ends");
        let (own, waited_for) = cpu_times(shell.id()).expect("its end is not taken");
        assert!(waited_for > own, "{own:?}, {waited_for:?}: the inner shell has counted");
        shell.wait().expect("taken");
        assert_eq!(cpu_times(shell.id()), None);
    }

    #[test]
    fn a_process_is_as_large_as_the_largest_that_it_has_started() {
        let own = of(std::process::id()).expect("/proc").expect("it lives").resident_bytes;
        // What it reads stays in memory: 64 MiB, more than a shell has.
        let text = r"x=$(head -c 67108864 /dev/zero | tr '\0' x); echo; read end";
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sh -c \"$0\"; true", text])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = [0];
        std::io::Read::read_exact(shell.stdout.as_mut().expect("a pipe"), &mut line).expect("it is ready");
        let outer = of(shell.id()).expect("/proc").expect("it lives").resident_bytes;
        let largest = resident_of_largest(shell.id()).expect("it lives");
        assert!(outer < 32 << 20 && largest > 64 << 20, "{outer} {largest}");
        assert!(resident_of_largest(std::process::id()).expect("it lives") >= own.min(largest));
        drop(shell.stdin.take());
        shell.wait().expect("it ends");
        assert_eq!(resident_of_largest(5_000_000), None);
    }

    #[test]
    fn this_process_uses_something_and_one_that_is_gone_nothing() {
        let usage = of(std::process::id()).expect("/proc").expect("it lives");
        assert!(usage.resident_bytes > 100_000 && usage.threads > 0 && usage.descriptors > Some(2), "{usage:?}");
        // No process has such a number (proc(5): pid_max is at most 2^22).
        assert_eq!(of(5_000_000).expect("/proc"), None);
    }
}

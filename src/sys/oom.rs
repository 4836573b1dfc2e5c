//! Whether the kernel has killed for want of memory in this process's control group.
//!
//! The kernel counts such a kill before it sends the signal (mm/oom_kill.c, `__oom_kill_process`), so a parent that
//! sees a child dead of SIGKILL finds the count grown already. It counts there whatever ran out: the group's own limit,
//! that of a group above, or the host's memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a counted kill may wait for its death to be seen, where several were counted together.
const TOGETHER: Duration = Duration::from_secs(2);

/// Watches the count of kills. Workers are in the same control group as their master unless they are moved.
#[derive(Debug)]
pub struct OomWatch {
    /// Kept open, so that it can be read when no descriptor is left. None where the count cannot be known: in the root
    /// group of cgroup v2, which has no such file, or without control groups.
    file: Option<File>,
    kills: Kills,
}

impl Default for OomWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl OomWatch {
    /// Finds the count and takes it as it is. Costs one descriptor.
    pub fn new() -> Self {
        let read = |path| fs::read_to_string(path).ok();
        let place = read("/proc/self/cgroup").zip(read("/proc/self/mountinfo"));
        let file = place.and_then(|(groups, mounts)| File::open(counter(&groups, &mounts)?).ok());
        Self::watch(file)
    }

    fn watch(file: Option<File>) -> Self {
        let seen = file.as_ref().and_then(count).unwrap_or(0);
        Self { file, kills: Kills { seen, spare: 0, since: Instant::now() } }
    }

    /// Whether the kernel has killed for want of memory since the last call that returned true. Ask once for each child
    /// that
    /// died by a SIGKILL that haft did not send.
    ///
    /// Of several kills that are counted together each answers one call, if that comes soon. False where it cannot be
    /// known. A kill of another process of the group (a worker's own child) is taken for the next such death: the
    /// kernel
    /// does not name the process it killed.
    pub fn killed_since_last(&mut self) -> bool {
        match self.file.as_ref().and_then(count) {
            Some(count) => self.kills.take(count, Instant::now()),
            None => false,
        }
    }
}

/// Kills that were counted, and deaths that were found to be theirs.
#[derive(Debug)]
struct Kills {
    seen: u64,
    /// Kills that were seen with another one, and when.
    spare: u64,
    since: Instant,
}

impl Kills {
    /// Whether a death that is seen now can be one of them.
    fn take(&mut self, count: u64, now: Instant) -> bool {
        let more = count.saturating_sub(self.seen);
        self.seen = count;
        if now.saturating_duration_since(self.since) > TOGETHER {
            self.spare = 0;
        }
        if more > 0 {
            (self.spare, self.since) = (self.spare.saturating_add(more), now);
        }
        let killed = self.spare > 0;
        self.spare = self.spare.saturating_sub(1);
        killed
    }
}

fn count(file: &File) -> Option<u64> {
    // memory.events has some ten short lines, memory.oom_control three.
    let mut bytes = [0; 1024];
    let length = file.read_at(&mut bytes, 0).ok()?;
    oom_kill(std::str::from_utf8(&bytes[..length]).ok()?)
}

/// The count in `memory.events` (Documentation/admin-guide/cgroup-v2.rst) or `memory.oom_control`
/// (cgroup-v1/memory.rst, Linux 4.13): lines of a word and a number.
fn oom_kill(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// The file that holds the count, from the texts of `/proc/self/cgroup` (cgroups(7)) and `/proc/self/mountinfo`
/// (proc_pid_mountinfo(5)).
fn counter(groups: &str, mounts: &str) -> Option<PathBuf> {
    // Where v1 has the memory controller, v2 has it not.
    let v1 = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let is_memory = fields.next()?.split(',').any(|controller| controller == "memory");
        is_memory.then(|| fields.next())?
    });
    let v2 = || groups.lines().find_map(|line| line.strip_prefix("0::"));
    match v1 {
        Some(group) => Some(folder(group, mounts, |mount| mount.is_v1_memory())?.join("memory.oom_control")),
        None => Some(folder(v2()?, mounts, |mount| mount.kind == "cgroup2")?.join("memory.events")),
    }
}

/// The group's folder below the mount that shows it.
fn folder(group: &str, mounts: &str, is_wanted: impl Fn(&Mount<'_>) -> bool) -> Option<PathBuf> {
    mounts.lines().filter_map(Mount::parse).filter(is_wanted).find_map(|mount| {
        // In a container the group may be the root of what is mounted.
        let below = Path::new(group).strip_prefix(mount.root).ok()?;
        Some(Path::new(mount.point).join(below))
    })
}

/// A line of mountinfo. Spaces in a path are escaped there; a path with one is not found.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut system = system.split(' ');
        let (root, point) = (place.next()?, place.next()?);
        let (kind, _, options) = (system.next()?, system.next()?, system.next()?);
        Some(Self { root, point, kind, options })
    }

    fn is_v1_memory(&self) -> bool {
        self.kind == "cgroup" && self.options.split(',').any(|option| option == "memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_count_is_where_the_memory_controller_is() {
        let counter = |groups, mounts| counter(groups, mounts).map(|path| path.to_string_lossy().into_owned());
        let found = |path: &str| Some(path.to_owned());
        assert_eq!(
            counter("0::/system.slice/haft.service\n", V2),
            found("/sys/fs/cgroup/system.slice/haft.service/memory.events")
        );
        assert_eq!(counter("0::/\n", V2), found("/sys/fs/cgroup/memory.events"));
        let hybrid = "5:cpu,cpuacct:/x\n4:memory:/haft:1\n1:name=systemd:/y\n0::/z\n";
        assert_eq!(counter(hybrid, HYBRID), found("/sys/fs/cgroup/memory/haft:1/memory.oom_control"));
        let bound = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(counter("0::/docker/abc/app\n", bound), found("/sys/fs/cgroup/app/memory.events"));
        assert_eq!(counter("0::/docker/abc\n", bound), found("/sys/fs/cgroup/memory.events"));
    }

    #[test]
    fn where_there_are_no_such_groups_there_is_no_count() {
        for (groups, mounts) in [
            ("", V2),
            ("0::/x\n", ""),
            ("0::/x\n", "nonsense\n\n - \na b c - d\n"),
            ("4:memory:/x\n", V2),
            ("0::/elsewhere\n", "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
        ] {
            assert_eq!(counter(groups, mounts), None, "{groups:?} {mounts:?}");
        }
    }

    #[test]
    fn the_count_is_read_from_either_form() {
        assert_eq!(oom_kill("low 0\nhigh 0\nmax 31\noom 4\noom_kill 3\noom_group_kill 1\n"), Some(3));
        assert_eq!(oom_kill("oom_kill_disable 0\nunder_oom 0\noom_kill 18446744073709551615\n"), Some(u64::MAX));
        for text in ["", "oom 4\n", "oom_kill_disable 0\n", "oom_kill\n", "oom_kill x\n"] {
            assert_eq!(oom_kill(text), None, "{text:?}");
        }
    }

    #[test]
    fn each_kill_is_one_death_and_is_not_kept_for_a_later_one() {
        let start = Instant::now();
        let mut kills = Kills { seen: 5, spare: 0, since: start };
        let soon = start + Duration::from_millis(1);
        assert!(!kills.take(5, start), "what was counted before the start is no death of ours");
        assert!(kills.take(6, start) && !kills.take(6, start));
        assert!(kills.take(9, start) && kills.take(9, soon) && kills.take(9, soon) && !kills.take(9, soon));
        assert!(kills.take(11, start));
        let later = start + TOGETHER + Duration::from_millis(1);
        assert!(!kills.take(11, later), "the second of the two was somebody else's");
        assert!(kills.take(12, later) && !kills.take(12, later));
        assert!(!kills.take(3, later), "a count that starts again");
    }

    #[test]
    fn the_count_is_read_anew_from_the_file_that_is_open() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("memory.events");
        fs::write(&path, "oom 7\noom_kill 7\n").expect("file");
        let mut watch = OomWatch::watch(File::open(&path).ok());
        assert!(!watch.killed_since_last());
        fs::write(&path, "oom 8\noom_kill 8\n").expect("file");
        assert!(watch.killed_since_last() && !watch.killed_since_last());
        assert!(!OomWatch::watch(None).killed_since_last());
    }

    #[test]
    fn this_process_has_not_been_killed() {
        assert!(!OomWatch::new().killed_since_last());
    }
}

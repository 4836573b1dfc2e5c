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
    /// group, which has no such file, or without cgroup v2.
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
    /// that died by a SIGKILL that haft did not send.
    ///
    /// Of several kills that are counted together each answers one call, if that comes soon. False where it cannot be
    /// known. A kill of another process of the group (a worker's own child) is taken for the next such death: the
    /// kernel does not name the process it killed.
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
    // It has some ten short lines.
    let mut bytes = [0; 1024];
    let length = file.read_at(&mut bytes, 0).ok()?;
    oom_kill(std::str::from_utf8(&bytes[..length]).ok()?)
}

/// The count in `memory.events` (Documentation/admin-guide/cgroup-v2.rst): lines of a word and a number.
fn oom_kill(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// The file that holds the count, from the texts of `/proc/self/cgroup` (cgroups(7)) and `/proc/self/mountinfo`
/// (proc_pid_mountinfo(5)).
fn counter(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().filter_map(Mount::parse).filter(|mount| mount.kind == "cgroup2").find_map(|mount| {
        // In a container the group may be the root of what is mounted.
        let below = Path::new(group).strip_prefix(mount.root).ok()?;
        Some(Path::new(mount.point).join(below).join("memory.events"))
    })
}

/// A line of mountinfo. Spaces in a path are escaped there; a path with one is not found.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        Some(Self { root: place.next()?, point: place.next()?, kind: system.split(' ').next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_count_is_in_the_folder_of_this_process_s_group() {
        let counter = |groups, mounts| counter(groups, mounts).map(|path| path.to_string_lossy().into_owned());
        let found = |path: &str| Some(path.to_owned());
        assert_eq!(
            counter("0::/system.slice/haft.service\n", V2),
            found("/sys/fs/cgroup/system.slice/haft.service/memory.events")
        );
        assert_eq!(counter("0::/\n", V2), found("/sys/fs/cgroup/memory.events"));
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
    fn the_count_is_the_one_of_kills() {
        assert_eq!(oom_kill("low 0\nhigh 0\nmax 31\noom 4\noom_kill 3\noom_group_kill 1\n"), Some(3));
        assert_eq!(oom_kill("oom_kill 18446744073709551615\n"), Some(u64::MAX));
        for text in ["", "oom 4\n", "oom_group_kill 1\n", "oom_kill\n", "oom_kill x\n"] {
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
        assert!(!kills.take(11, later), "the second of the two was another process's");
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

//! Giving back the memory of code that only the start, or a reload, needed.
//!
//! The code that a program runs is a mapping of its file, and pages of it are resident once they were used: reading the
//! command line alone brings in more of haft than serving ever does. Such pages are the kernel's to read again whenever
//! they are needed, so they can be let go at no risk; what serves is back within its first turns.

use std::fs;
use std::io;

/// Lets go of the pages of this process that are nothing but copies of files: code, constants, of libraries too. Yields
/// how many bytes they cover.
///
/// # Errors
///
/// When /proc cannot be read; nothing has changed then.
pub fn give_back() -> io::Result<usize> {
    let mut covered = 0;
    for Mapping { start, len } in unchanged_copies(&fs::read_to_string("/proc/self/smaps")?) {
        // SAFETY: the mapping is of a file, not writable, and has no page that differs from the file (or it would be
        // anonymous): MADV_DONTNEED makes the kernel read pages from that file again (madvise(2)). Nothing else changes
        // mappings meanwhile: code and libraries stay where they are.
        let given = unsafe { libc::madvise(std::ptr::without_provenance_mut(start), len, libc::MADV_DONTNEED) };
        if given == 0 {
            covered += len;
        }
    }
    Ok(covered)
}

#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    len: usize,
}

/// The mappings in a text as of /proc/PID/smaps (proc_pid_smaps(5)) that are private, of a file, not writable, and have
/// no page of their own.
fn unchanged_copies(smaps: &str) -> Vec<Mapping> {
    let mut found = Vec::new();
    let mut current = None;
    let mut has_own_pages = false;
    for line in smaps.lines() {
        if let Some(mapping) = head(line) {
            found.extend(current.take().filter(|_| !has_own_pages));
            (current, has_own_pages) = (mapping, false);
        } else if let Some(("Anonymous" | "Swap", value)) = line.split_once(':') {
            has_own_pages |= value.trim() != "0 kB";
        }
    }
    found.extend(current.filter(|_| !has_own_pages));
    found
}

/// The first line of a mapping: `start-end perms offset device inode path`. Within: nothing, where it is none of those.
fn head(line: &str) -> Option<Option<Mapping>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    let (perms, path) = (words.next()?, words.nth(3));
    let is_copy = matches!(perms, "r-xp" | "r--p") && path.is_some_and(|path| path.starts_with('/'));
    Some((is_copy && start < end).then(|| Mapping { start, len: end - start }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_file_holds_is_let_go() {
        let smaps = "\
55d0c0000000-55d0c0002000 r--p 00000000 08:01 42                         /usr/bin/haft\nRss: 8 kB\nAnonymous:             0 kB\nSwap:                  0 kB\n\
55d0c0002000-55d0c0005000 r-xp 00002000 08:01 42                         /usr/bin/haft\nAnonymous:             0 kB\nSwap:                  0 kB\nVmFlags: rd ex mr\n\
55d0c0005000-55d0c0006000 r--p 00005000 08:01 42                         /usr/bin/haft\nAnonymous:             4 kB\nSwap:                  0 kB\n\
55d0c0006000-55d0c0007000 r--p 00005000 08:01 42                         /usr/bin/haft\nAnonymous:             0 kB\nSwap:                  4 kB\n\
55d0c0007000-55d0c0008000 rw-p 00006000 08:01 42                         /usr/bin/haft\nAnonymous:             0 kB\nSwap:                  0 kB\n\
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]\nAnonymous:             0 kB\nSwap:                  0 kB\n\
7f0000000000-7f0000002000 r--s 00000000 00:00 7                          /dev/shm/x\nAnonymous: 0 kB\nSwap: 0 kB\n";
        let expected = [(0x55d0_c000_0000, 0x2000), (0x55d0_c000_2000, 0x3000)];
        assert_eq!(unchanged_copies(smaps), expected.map(|(start, len)| Mapping { start, len }));
        assert_eq!(unchanged_copies(""), []);
    }

    #[test]
    fn the_process_runs_on_and_has_fewer_pages() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").expect("status");
            let line = status.lines().find(|line| line.starts_with("RssFile:")).expect("a line").to_owned();
            line.split_ascii_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number")
        };
        let before = resident();
        assert!(give_back().expect("given back") > 0);
        let after = resident();
        assert!(after < before, "{before} kB, then {after} kB");
    }
}

//! What of this program's file is in this process's memory.

use std::fs;
use std::io;
use std::ops::Range;

/// Takes the program's code and constants out of this process's memory. What is used is there again with its next use, from
/// the kernel's cache of the file: for a process that has started, and never again needs most of what that took.
///
/// Other processes that run the same program do not notice.
///
/// # Errors
///
/// If `/proc` cannot be read: nothing is changed then.
pub fn forget_unused_code() -> io::Result<()> {
    for range in unchanged(&fs::read_to_string("/proc/self/smaps")?) {
        // SAFETY: the range is a mapping of a file that this process cannot write to, and of which it has no page of its
        // own: each page that is touched again is read from the file, with the same content.
        unsafe { libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// The private mappings of files that cannot be written to, and of which no page differs from its file (as those differ that
/// were relocated at the start, or in which a debugger has put a breakpoint).
fn unchanged(smaps: &str) -> Vec<Range<usize>> {
    let (mut found, mut candidate) = (Vec::new(), None);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((from, to)) = first.split_once('-') {
            let [from, to] = [from, to].map(|end| usize::from_str_radix(end, 16).ok());
            let is_file =
                matches!(words.next(), Some("r-xp" | "r--p")) && words.nth(3).is_some_and(|it| it.starts_with('/'));
            candidate = from.zip(to).filter(|_| is_file).map(|(from, to)| from..to);
        } else if first == "Anonymous:" && words.next() == Some("0") {
            found.extend(candidate.take());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_equals_its_file_counts() {
        let smaps = "\
1000-3000 r--p 00000000 fe:00 6 /usr/bin/haft
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
3000-4000 r-xp 00002000 fe:00 6 /usr/bin/haft (deleted)
Anonymous:             0 kB
4000-5000 r--p 00003000 fe:00 6 /usr/bin/haft
Anonymous:             4 kB
5000-6000 rw-p 00004000 fe:00 6 /usr/bin/haft
Anonymous:             0 kB
6000-7000 r--s 00000000 fe:00 7 /var/cache/nscd/hosts
Anonymous:             0 kB
7000-8000 r--p 00000000 00:00 0 
Anonymous:             0 kB
8000-9000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
";
        assert_eq!(unchanged(smaps), [0x1000..0x3000, 0x3000..0x4000]);
    }

    #[test]
    fn this_program_goes_on_and_has_less_in_memory() {
        let resident = || -> u64 {
            let status = fs::read_to_string("/proc/self/status").expect("status");
            let line =
                status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("its part that is of files");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        let before = resident();
        forget_unused_code().expect("/proc");
        assert!(resident() < before, "{before} before, {} after", resident());
    }
}

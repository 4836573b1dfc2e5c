//! What haft and its workers write, line by line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use super::DEADLINE;

#[derive(Debug, Default)]
struct Lines {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

/// The lines of a process's output, which a thread reads until the end.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Lines>);

impl Log {
    /// Of an output that is not read.
    pub fn unread() -> Self {
        let log = Self::default();
        log.lock().1 = true;
        log
    }

    /// Reads `output` in a thread of its own.
    pub fn of(output: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let lines = Arc::clone(&log.0);
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                lines.lines.lock().expect("lines").0.push(String::from_utf8_lossy(&line).into_owned());
                lines.changed.notify_all();
            }
            lines.lines.lock().expect("lines").1 = true;
            lines.changed.notify_all();
        });
        log
    }

    /// Waits until the lines are enough, the output has ended, or the deadline has come. Yields whether they are enough.
    fn wait(&self, mut enough: impl FnMut(&[String]) -> bool) -> bool {
        let deadline = Instant::now() + DEADLINE;
        let mut lines = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if enough(&lines.0) {
                return true;
            }
            if lines.1 || left.is_zero() {
                return false;
            }
            lines = self.0.changed.wait_timeout(lines, left).expect("lines").0;
        }
    }

    /// Waits for `count` lines that contain `part` and yields them.
    pub fn lines_with(&self, part: &str, count: usize) -> Vec<String> {
        // Each line is looked at once: a process that writes very much must not wait for its reader.
        let (mut found, mut seen) = (Vec::new(), 0);
        let are_there = self.wait(|lines| {
            found.extend(lines[seen..].iter().filter(|line| line.contains(part)).cloned());
            seen = lines.len();
            found.len() >= count
        });
        assert!(are_there, "not written: {part:?}, {count} times");
        found
    }

    /// Waits for a line that contains `part`.
    pub fn line_with(&self, part: &str) -> String {
        self.lines_with(part, 1).swap_remove(0)
    }

    /// Everything written until the end, which is waited for.
    pub fn whole(&self) -> String {
        self.wait(|_| false);
        assert!(self.lock().1, "the output has not ended");
        self.so_far()
    }

    /// Everything written until now.
    pub fn so_far(&self) -> String {
        self.lock().0.join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.0.lines.lock().expect("lines")
    }
}

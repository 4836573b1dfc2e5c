//! What workers write: passed on as it comes, held back while it may be the fifth copy of one failure.
//!
//! A worker's stderr comes through a pipe, and so does its stdout, but where it may have a terminal. The first worker that is started
//! speaks freely. Of the others, and of replacements, what they write before they are ready is held back: when they get
//! ready it is passed on, and when they die first it is shown only if it has not been shown already.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::rc::Rc;
use std::task::ready;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, ReadBuf};

use super::lines::SharedLines;
use crate::log::OutputQueue;
use crate::route::Slot;

/// Most that is held back of one worker. Past it the rest is passed on.
const MAX_HELD: usize = 64 * 1024;
/// How fast the output of one worker is read, and how much may come at once. A worker that writes more waits.
const BYTES_PER_SECOND: u32 = 8 << 20;
const BURST: u32 = 1 << 20;
/// A worker that writes too much is spoken of once in so long.
const REMINDER: Duration = Duration::from_secs(60);
/// How long the rest of a line is waited for.
const REST_OF_LINE: Duration = Duration::from_millis(50);
/// Bytes that are kept of a line for the report.
const TAIL_LINE: usize = 1024;
/// Lines that are kept for the report when haft gives up on the worker.
const TAIL_LINES: usize = 12;

/// What becomes of the workers' output.
#[derive(Debug, Clone, Copy)]
pub struct OutputStyle {
    /// Whether each line gets the worker's slot in front.
    pub is_marked: bool,
    /// Whether haft reads standard output, too, and passes it on: else workers write to haft's own.
    pub has_stdout: bool,
}

impl OutputStyle {
    /// A program that may write its lines as they are keeps the terminal that it was started from, and its colours.
    pub fn new(is_marked: bool) -> Self {
        Self { is_marked, has_stdout: is_marked || !io::stdout().is_terminal() }
    }
}

/// The output of one worker's life.
#[derive(Debug, Default)]
pub struct Output {
    held: Option<Vec<u8>>,
    tail: VecDeque<String>,
    partial: Vec<u8>,
    sought: Option<String>,
    found: bool,
}

/// The output of one worker, shared between what reads it and what judges it.
pub type SharedOutput = Rc<RefCell<Output>>;

impl Output {
    /// Output that is passed on as it comes.
    pub fn speaking() -> SharedOutput {
        SharedOutput::default()
    }

    /// Output that is held back until [`Output::release`].
    pub fn held() -> SharedOutput {
        Rc::new(RefCell::new(Self { held: Some(Vec::new()), ..Self::default() }))
    }

    /// The last lines that the worker wrote.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    /// From now on until [`Output::release`] this is looked for in what is written.
    pub fn search_for(&mut self, sought: Option<&str>) {
        self.sought = sought.map(str::to_owned);
    }

    /// What was looked for, if it was found within one line.
    pub fn sought(&self) -> Option<&str> {
        self.sought.as_deref().filter(|_| self.found)
    }

    /// The worker is ready: yields what was held back, to be passed on; what follows comes as it is written.
    pub fn release(&mut self) -> Option<Vec<u8>> {
        self.sought = None;
        self.held.take()
    }

    /// Notes what was written. Yields what is to be passed on now.
    pub(super) fn write<'a>(&mut self, bytes: &'a [u8]) -> Option<std::borrow::Cow<'a, [u8]>> {
        self.note(bytes);
        if let Some(sought) = &self.sought {
            self.found |= memchr::memmem::find(bytes, sought.as_bytes()).is_some();
        }
        match &mut self.held {
            Some(held) if held.len() + bytes.len() <= MAX_HELD => {
                held.extend_from_slice(bytes);
                None
            }
            Some(held) => {
                let mut all = std::mem::take(held);
                self.held = None;
                all.extend_from_slice(bytes);
                Some(all.into())
            }
            None => Some(bytes.into()),
        }
    }

    /// Keeps the last lines, the same ones in however many pieces they come. It costs the same however many there are.
    fn note(&mut self, bytes: &[u8]) {
        let Some(end) = memchr::memchr(b'\n', bytes) else { return self.note_part(bytes) };
        self.note_part(&bytes[..end]);
        self.note_end();
        let rest = &bytes[end + 1..];
        let Some(end) = memchr::memrchr(b'\n', rest) else { return self.note_part(rest) };
        let lines = rest[..end].rsplit(|byte| *byte == b'\n').filter(|line| !line.trim_ascii_end().is_empty());
        let last: Vec<&[u8]> = lines.take(TAIL_LINES).collect();
        for line in last.into_iter().rev() {
            self.note_part(line);
            self.note_end();
        }
        self.note_part(&rest[end + 1..]);
    }

    fn note_end(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).trim_end().to_owned();
        if !line.is_empty() {
            self.tail.push_back(line);
            if self.tail.len() > TAIL_LINES {
                self.tail.pop_front();
            }
        }
    }

    fn note_part(&mut self, bytes: &[u8]) {
        let room = TAIL_LINE.saturating_sub(self.partial.len());
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// What makes two outputs the same failure: their text without the numbers in it (process ids, times, ports).
pub fn likeness(text: &str) -> String {
    let mut alike = String::with_capacity(text.len());
    for letter in text.chars() {
        let letter = if letter.is_ascii_digit() { '#' } else { letter };
        if letter != '#' || !alike.ends_with('#') {
            alike.push(letter);
        }
    }
    alike
}

/// How a worker's output is passed on.
#[derive(Debug)]
pub struct OutputRelay {
    /// The worker that writes it.
    pub slot: Slot,
    /// Where it goes.
    pub to: &'static OutputQueue,
    /// What is put before each line.
    pub prefix: Option<String>,
    /// What is kept of it.
    pub output: SharedOutput,
    /// The last lines of all slots.
    pub lines: SharedLines,
}

impl OutputRelay {
    /// Passes a pipe on until its end, in whole lines as far as they come.
    pub async fn run(self, mut pipe: impl AsyncRead + Unpin) {
        let (mut line, mut begun) = (Vec::new(), Vec::new());
        let mut pace = LineRate::new(Instant::now());
        loop {
            let is_begun = !line.is_empty() && self.prefix.is_none();
            let read = read(&mut pipe, |bytes| {
                self.lines.borrow_mut().note(self.slot, &mut begun, bytes, unix_ms());
                (bytes.len(), whole_lines(self.prefix.as_deref(), bytes, &mut line))
            });
            let read = match is_begun {
                false => read.await,
                // A prompt or a row of dots is to be seen before the line has its end.
                true => match tokio::time::timeout(REST_OF_LINE, read).await {
                    Ok(read) => read,
                    Err(_) => {
                        self.pass(std::mem::take(&mut line)).await;
                        continue;
                    }
                },
            };
            let Ok((len @ 1.., lines)) = read else { break };
            self.pass(lines).await;
            self.slow_down(&mut pace, len).await;
        }
        if !line.is_empty() {
            let last = match &self.prefix {
                None => line,
                Some(prefix) => whole_lines(Some(prefix), b"\n", &mut line),
            };
            self.pass(last).await;
        }
    }

    async fn pass(&self, bytes: Vec<u8>) {
        let passed = self.output.borrow_mut().write(&bytes).map(std::borrow::Cow::into_owned);
        if let Some(bytes) = passed.filter(|bytes| !bytes.is_empty()) {
            self.to.pass(self.slot, &bytes).await;
        }
    }

    /// Leaves the pipe alone for as long as the worker has written too much.
    async fn slow_down(&self, pace: &mut LineRate, len: usize) {
        let pause = pace.read(len, Instant::now());
        if pause.is_zero() {
            return;
        }
        self.to.note_pause(self.slot);
        if pace.is_worth_a_line(Instant::now()) {
            tracing::warn!(
                slot = %self.slot,
                "the worker writes more than {} MiB a second to {}: it is read no faster, and the worker waits; have it \
                 write less, or to a file of its own",
                BYTES_PER_SECOND >> 20,
                self.to.name()
            );
        }
        tokio::time::sleep(pause).await;
    }
}

thread_local! {
    /// What all pipes are read with: most of them are silent, and each would keep its own.
    static BUFFER: RefCell<[u8; 8 * 1024]> = const { RefCell::new([0; 8 * 1024]) };
}

/// Reads what there is, and yields what `take` makes of it. Of nothing at the end.
async fn read<T>(pipe: &mut (impl AsyncRead + Unpin), mut take: impl FnMut(&[u8]) -> T) -> io::Result<T> {
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *pipe).poll_read(context, &mut buffer))?;
            Ok(take(buffer.filled())).into()
        })
    })
    .await
}

/// Now, in milliseconds since 1970.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// How fast an output is read.
#[derive(Debug)]
struct LineRate {
    left: i64,
    filled: Instant,
    logged: Option<Instant>,
}

impl LineRate {
    fn new(now: Instant) -> Self {
        Self { left: BURST.into(), filled: now, logged: None }
    }

    /// Notes what was read. Yields how long to wait until the next reading.
    fn read(&mut self, len: usize, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.filled).as_micros();
        let more = since.saturating_mul(BYTES_PER_SECOND.into()) / 1_000_000;
        if more > 0 {
            (self.left, self.filled) =
                ((self.left + i64::try_from(more).unwrap_or(BURST.into())).min(BURST.into()), now);
        }
        self.left -= i64::try_from(len).unwrap_or(i64::MAX);
        if self.left >= 0 {
            return Duration::ZERO;
        }
        // Longer than needed: one pause for many reads.
        Duration::from_millis(20) + Duration::from_secs(1) * self.left.unsigned_abs() as u32 / BYTES_PER_SECOND
    }

    fn is_worth_a_line(&mut self, now: Instant) -> bool {
        let is_due = self.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= REMINDER);
        if is_due {
            self.logged = Some(now);
        }
        is_due
    }
}

/// The whole lines of `line` and `bytes`, each behind the prefix; the rest stays in `line`, bounded.
fn whole_lines(prefix: Option<&str>, bytes: &[u8], line: &mut Vec<u8>) -> Vec<u8> {
    let prefix = prefix.map(str::as_bytes);
    let mut out = Vec::with_capacity(line.len() + bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = match prefix {
            Some(_) => memchr::memchr(b'\n', rest),
            None => memchr::memrchr(b'\n', rest),
        };
        let (part, has_end) = end.map_or((rest, false), |end| (&rest[..=end], true));
        rest = &rest[part.len()..];
        line.extend_from_slice(part);
        if has_end || line.len() >= MAX_HELD {
            out.extend_from_slice(prefix.unwrap_or_default());
            out.append(line);
            if prefix.is_some() && !has_end {
                out.push(b'\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_out_once_and_whole() {
        let output = Output::held();
        let mut output = output.borrow_mut();
        assert_eq!(output.write(b"Error: no\n"), None);
        assert_eq!(output.write(b"  at x.js:1\n"), None);
        assert_eq!(output.release().expect("held"), b"Error: no\n  at x.js:1\n");
        assert_eq!(output.write(b"later\n").expect("passed on").as_ref(), b"later\n");
        assert_eq!(output.tail().collect::<Vec<_>>(), ["Error: no", "  at x.js:1", "later"]);
    }

    #[test]
    fn holding_is_bounded_and_loses_nothing() {
        let output = Output::held();
        let mut output = output.borrow_mut();
        let chunk = vec![b'a'; MAX_HELD];
        assert_eq!(output.write(&chunk), None);
        assert_eq!(output.write(b"bc").expect("passed on").len(), MAX_HELD + 2);
        assert!(output.release().is_none());
    }

    #[test]
    fn one_failure_with_other_numbers_is_the_same_failure() {
        assert_eq!(likeness("(node:12) Error at 10:07"), likeness("(node:3456) Error at 9:12"));
        assert_ne!(likeness("Error: a"), likeness("Error: b"));
    }

    #[test]
    fn a_prefix_stands_before_each_whole_line() {
        let (mut line, prefix) = (Vec::new(), Some("[w0] "));
        assert_eq!(whole_lines(prefix, b"one\ntw", &mut line), b"[w0] one\n");
        assert_eq!(whole_lines(prefix, b"o\n\nthree", &mut line), b"[w0] two\n[w0] \n");
        let long = whole_lines(prefix, &b"x".repeat(MAX_HELD), &mut line);
        assert!(long.starts_with(b"[w0] threexxx") && long.ends_with(b"x\n") && line.is_empty());
    }

    #[test]
    fn lines_are_passed_on_whole_and_as_they_are() {
        let mut line = Vec::new();
        assert_eq!(whole_lines(None, b"one\ntwo\nthr", &mut line), b"one\ntwo\n");
        assert_eq!(whole_lines(None, b"ee", &mut line), b"");
        assert_eq!(whole_lines(None, b"\n", &mut line), b"three\n");
        let long = b"x".repeat(MAX_HELD);
        assert_eq!(whole_lines(None, &long, &mut line), long);
    }

    #[test]
    fn the_last_lines_are_kept_however_they_come() {
        let text: String = (0..100).map(|n| format!("line {n}\n\n")).collect();
        for size in [1, 7, 50, 10_000] {
            let output = Output::speaking();
            let mut output = output.borrow_mut();
            text.as_bytes().chunks(size).for_each(|chunk| output.note(chunk));
            output.note(b"begun");
            let tail: Vec<&str> = output.tail().collect();
            assert_eq!(tail.last(), Some(&"line 99"), "{size}");
            assert!(tail.len() == TAIL_LINES && tail.iter().all(|line| line.starts_with("line ")), "{tail:?}");
        }
        let output = Output::speaking();
        output.borrow_mut().note(&[b"x".repeat(100_000), b"\n".to_vec()].concat());
        assert_eq!(output.borrow().tail().map(str::len).collect::<Vec<_>>(), [TAIL_LINE]);
    }

    #[test]
    fn what_is_read_of_a_worker_without_end_is_bounded_by_time() {
        let (start, mut now, mut read) = (Instant::now(), Instant::now(), 0_u64);
        let mut pace = LineRate::new(start);
        while now < start + Duration::from_secs(10) {
            read += 8192;
            now += pace.read(8192, now);
        }
        let most = u64::from(BURST) + 10 * u64::from(BYTES_PER_SECOND);
        assert!(read <= most + 8192 && read > most / 2, "{read}");
        // A worker that writes less is not slowed down.
        let mut pace = LineRate::new(start);
        assert!((0..1000).all(|n| pace.read(8000, start + Duration::from_millis(n)).is_zero()));
    }
}

//! What haft writes to its own outputs, on its way there: a bounded queue, and a thread that empties it.
//!
//! The reader of haft's standard error may stop reading: a pager, a log collector that hangs, a full disk behind it. A
//! write then waits in the kernel for as long as that lasts, so the master's loop never writes by itself. It puts lines
//! into the queue, and where there is no room it drops and counts them. The descriptor is shared with others, so it is
//! not made non-blocking.
//!
//! Each source has room of its own: a worker that floods its standard error fills its own share, not that of haft's
//! lines or of other workers.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::file::{self, LogFileError};
use super::notices;
use super::writing::{LogOutput, LogSource, LogTarget, leave_signals_to_others};
use crate::route::Slot;

/// Room for haft's own lines, in bytes.
const OWN_ROOM: usize = 256 * 1024;
/// Room for what one slot's workers write, in bytes. What is held back of a worker (`output`) fits.
const SLOT_ROOM: usize = 128 * 1024;
/// A reader that has taken nothing for so long has stalled: workers are no longer made to wait for it.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// How often the writing thread checks for notices, while there are any.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the end of haft waits for its outputs, in all and without progress.
const MAX_FLUSH: Duration = Duration::from_secs(2);
const MAX_FLUSH_STALL: Duration = Duration::from_millis(300);

/// Haft's standard error.
pub static STDERR: OutputQueue = OutputQueue::new(LogTarget::Stderr);
/// Haft's standard output.
pub static STDOUT: OutputQueue = OutputQueue::new(LogTarget::Stdout);

/// The file that takes the place of standard error.
pub static LOG_FILE: OutputQueue = OutputQueue::new(LogTarget::File);

/// The queue before one of haft's outputs.
#[derive(Debug)]
pub struct OutputQueue {
    target: LogTarget,
    state: Mutex<QueueState>,
    /// Something is to be written, or nothing is left to be.
    changed: Condvar,
    /// For threads that wait for room.
    room: Notify,
    /// How long a reader may take nothing.
    stalled_after: Duration,
}

#[derive(Debug)]
struct QueueState {
    /// Whether the writing thread runs.
    running: bool,
    /// Whether the file is to be opened anew.
    reopen: bool,
    chunks: VecDeque<(LogSource, Vec<u8>)>,
    /// Bytes by source, those that are being written included. A source without any is not in it.
    queued: BTreeMap<LogSource, usize>,
    /// When the reader last took something, or the queue began to fill.
    progress: Option<Instant>,
    /// Dropped lines of each source: in all, and those not yet reported.
    dropped: BTreeMap<LogSource, DroppedLines>,
    /// How often each slot's workers were made to wait.
    pauses: BTreeMap<Slot, u64>,
}

/// What an output is written to.
type Descriptor = Box<dyn AsFd + Send>;

/// What the writing thread does next.
enum Work {
    Write(LogSource, Vec<u8>),
    /// There may be something to report.
    TellNotices,
    Reopen,
}

#[derive(Debug, Default, Clone, Copy)]
struct DroppedLines {
    total: u64,
    untold: u64,
}

impl QueueState {
    fn queued(&self, source: LogSource) -> usize {
        self.queued.get(&source).copied().unwrap_or(0)
    }

    fn has_stalled(&self, after: Duration) -> bool {
        self.progress.is_some_and(|progress| progress.elapsed() >= after)
    }

    fn drop_lines(&mut self, source: LogSource, bytes: &[u8]) {
        let dropped = self.dropped.entry(source).or_default();
        let lines = lines_in(bytes);
        dropped.total += lines;
        dropped.untold += lines;
    }
}

impl OutputQueue {
    /// Whether text for people may have colours there.
    pub fn is_colourful(&self) -> bool {
        self.target.is_colourful()
    }

    const fn new(target: LogTarget) -> Self {
        let state = QueueState {
            running: false,
            reopen: false,
            chunks: VecDeque::new(),
            queued: BTreeMap::new(),
            progress: None,
            dropped: BTreeMap::new(),
            pauses: BTreeMap::new(),
        };
        let (changed, room) = (Condvar::new(), Notify::const_new());
        Self { target, state: Mutex::new(state), changed, room, stalled_after: STALLED_AFTER }
    }

    /// Takes lines of haft's own. Never waits: without room they are dropped and counted.
    pub fn push(&'static self, bytes: &[u8]) {
        self.try_push(None, bytes, OWN_ROOM);
    }

    /// Takes what a slot's worker has written. Never waits: without room it is dropped and counted.
    pub fn push_output(&'static self, slot: Slot, bytes: &[u8]) {
        self.try_push(Some(slot), bytes, SLOT_ROOM);
    }

    /// Takes what a slot's worker has written, as soon as there is room. If the reader has stalled it is dropped and
    /// counted instead, so that the worker does not stall with it.
    pub async fn pass(&'static self, slot: Slot, bytes: &[u8]) {
        loop {
            // Before looking for room: what becomes free afterwards is not missed.
            let room = self.room.notified();
            {
                let state = self.lock();
                if state.queued(Some(slot)) + bytes.len() <= SLOT_ROOM || state.has_stalled(self.stalled_after) {
                    break;
                }
            }
            tokio::time::timeout(self.stalled_after / 2, room).await.ok();
        }
        self.push_output(slot, bytes);
    }

    fn try_push(&'static self, source: LogSource, bytes: &[u8], room: usize) {
        let mut state = self.lock();
        let queued = state.queued(source);
        // A piece that is longer than the room is let in alone.
        let fits = queued == 0 || queued + bytes.len() <= room;
        if !(fits && self.ensure_running(&mut state)) {
            state.drop_lines(source, bytes);
            return;
        }
        state.progress.get_or_insert_with(Instant::now);
        state.queued.insert(source, queued + bytes.len());
        state.chunks.push_back((source, bytes.to_vec()));
        self.changed.notify_all();
    }

    /// Starts the writing thread with the first piece. Where no thread can be had it is tried again with the next.
    fn ensure_running(&'static self, state: &mut QueueState) -> bool {
        if !state.running {
            let descriptor: Option<Descriptor> = match self.target {
                LogTarget::Stdout => Some(Box::new(io::stdout())),
                LogTarget::Stderr => Some(Box::new(io::stderr())),
                LogTarget::File => open_file().ok(),
            };
            state.running = descriptor.is_some_and(|descriptor| self.start(descriptor));
        }
        state.running
    }

    fn start(&'static self, descriptor: Descriptor) -> bool {
        let thread = std::thread::Builder::new().name("haft-output".to_owned());
        thread.spawn(|| self.write_forever(LogOutput::new(descriptor))).is_ok()
    }

    /// Opens the file anew, where it has its name now. Never waits: the writing thread does it, before it writes
    /// anything that comes later.
    pub fn reopen(&self) {
        self.lock().reopen = true;
        self.changed.notify_all();
    }

    /// Makes the writing thread look for notices from now on.
    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    fn write_forever(&self, mut output: LogOutput<Descriptor>) {
        leave_signals_to_others();
        loop {
            let (source, bytes) = match self.next() {
                Work::Write(source, bytes) => (source, bytes),
                Work::TellNotices => {
                    notices::log_suppressed(Instant::now());
                    continue;
                }
                Work::Reopen => {
                    match open_file() {
                        Ok(file) => {
                            output = LogOutput::new(file);
                            tracing::info!("the log file is opened anew");
                        }
                        Err(error) => tracing::error!("the log file stays the old one: {error}"),
                    }
                    continue;
                }
            };
            let written = output.write(&bytes, source, || self.lock().progress = Some(Instant::now()));
            let lost = self.finished(source, bytes.len(), &bytes[written..]);
            self.room.notify_waiters();
            for (source, lines) in lost {
                notices::log_dropped(self.target, source, lines);
            }
        }
    }

    /// Waits for what is to be done.
    fn next(&self) -> Work {
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.reopen) {
                return Work::Reopen;
            }
            if let Some((source, bytes)) = state.chunks.pop_front() {
                return Work::Write(source, bytes);
            }
            if self.logs_notices() && notices::are_due_soon() {
                let (after, timeout) =
                    self.changed.wait_timeout(state, NOTICE_INTERVAL).unwrap_or_else(PoisonError::into_inner);
                state = after;
                if timeout.timed_out() {
                    return Work::TellNotices;
                }
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// The output that has haft's own lines has the notices, too.
    fn logs_notices(&self) -> bool {
        self.target == if file::path().is_some() { LogTarget::File } else { LogTarget::Stderr }
    }

    /// A piece is done with; `lost` of it could not be written. Returns what is to be reported of dropped lines.
    fn finished(&self, source: LogSource, len: usize, lost: &[u8]) -> Vec<(LogSource, u64)> {
        let mut state = self.lock();
        let left = state.queued(source).saturating_sub(len);
        match left {
            0 => state.queued.remove(&source),
            left => state.queued.insert(source, left),
        };
        state.progress = (!state.queued.is_empty()).then(Instant::now);
        if state.queued.is_empty() {
            self.changed.notify_all();
        }
        if !lost.is_empty() {
            state.drop_lines(source, lost);
            return Vec::new();
        }
        // There is room again once half of haft's own is free, and half of the source's.
        if state.queued(None) > OWN_ROOM / 2 {
            return Vec::new();
        }
        let QueueState { dropped, queued, .. } = &mut *state;
        let has_room = |source: &LogSource| queued.get(source).is_none_or(|queued| *queued <= SLOT_ROOM / 2);
        let due = dropped.iter_mut().filter(|(source, dropped)| dropped.untold > 0 && has_room(source));
        due.map(|(source, dropped)| (*source, std::mem::take(&mut dropped.untold))).collect()
    }

    /// Waits until everything has been written, or the reader has taken nothing for a moment.
    pub(super) fn flush(&self) {
        let began = Instant::now();
        let mut state = self.lock();
        while state.running && !state.queued.is_empty() {
            let now = Instant::now();
            let stalled = now.saturating_duration_since(state.progress.unwrap_or(now).max(began));
            let left = MAX_FLUSH_STALL.saturating_sub(stalled).min(MAX_FLUSH.saturating_sub(began.elapsed()));
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lines of haft's own that were dropped until now.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped.get(&None).map_or(0, |dropped| dropped.total)
    }

    /// Lines of a slot's workers that were dropped until now.
    pub fn dropped_of(&self, slot: Slot) -> u64 {
        self.lock().dropped.get(&Some(slot)).map_or(0, |dropped| dropped.total)
    }

    /// The worker of a slot is left alone for a moment, since it writes too much.
    pub fn note_pause(&self, slot: Slot) {
        *self.lock().pauses.entry(slot).or_default() += 1;
    }

    /// How often the workers of a slot were made to wait, since they wrote too much.
    pub fn pauses_of(&self, slot: Slot) -> u64 {
        self.lock().pauses.get(&slot).copied().unwrap_or(0)
    }

    /// Which output it is, for people.
    pub fn name(&self) -> &'static str {
        self.target.name()
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_file() -> Result<Descriptor, LogFileError> {
    let file = file::open(file::path().unwrap_or(Path::new("")))?;
    Ok(Box::new(file))
}

/// Lines in a piece of output; one that has no end counts.
fn lines_in(bytes: &[u8]) -> u64 {
    let ends = memchr::memchr_iter(b'\n', bytes).count() as u64;
    ends + u64::from(bytes.last().is_some_and(|last| *last != b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    const SLOT: Slot = Slot(3);

    /// A queue before a pipe, which takes about 64 KiB until it is read.
    fn queue(stalled_after: Duration) -> (&'static OutputQueue, File) {
        let (read, write) = nix::unistd::pipe().expect("pipe");
        let queue = OutputQueue { stalled_after, ..OutputQueue::new(LogTarget::Stdout) };
        let queue: &'static OutputQueue = Box::leak(Box::new(queue));
        queue.lock().running = queue.start(Box::new(write));
        (queue, read.into())
    }

    #[test]
    fn a_source_that_floods_has_its_own_room_only_and_what_is_dropped_is_counted() {
        let (queue, mut reader) = queue(STALLED_AFTER);
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        (0..1000).for_each(|_| queue.push_output(SLOT, &line));
        queue.push_output(Slot(4), b"another worker's\n");
        queue.push(b"haft's\n");
        let dropped = queue.dropped_of(SLOT);
        assert!((700..950).contains(&dropped), "{dropped}");
        assert_eq!((queue.dropped_of(Slot(4)), queue.dropped()), (0, 0));
        let mut text = String::new();
        while !text.ends_with("haft's\n") {
            let mut buffer = [0; 4096];
            let len = reader.read(&mut buffer).expect("read");
            text.push_str(std::str::from_utf8(&buffer[..len]).expect("text"));
        }
        assert!(text.contains("another worker's\n"));
        assert_eq!(text.matches("x\n").count() as u64 + dropped, 1000);
        queue.flush();
        assert_eq!(queue.lock().queued.len(), 0);
    }

    #[tokio::test]
    async fn a_worker_waits_for_a_reader_that_is_slow() {
        let (queue, mut reader) = queue(Duration::MAX);
        let piece = b"a line\n".repeat(1000);
        let slow = std::thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            reader.read_exact(&mut buffer).expect("read");
            // Slow, and alive.
            while !buffer.ends_with(b"last\n") {
                let mut part = [0; 4096];
                let len = reader.read(&mut part).expect("read");
                buffer.extend_from_slice(&part[..len]);
                std::thread::yield_now();
            }
            buffer
        });
        for _ in 0..100 {
            queue.pass(SLOT, &piece).await;
        }
        queue.pass(SLOT, b"last\n").await;
        let read = slow.join().expect("the reader");
        assert_eq!((read.len(), queue.dropped_of(SLOT)), (100 * piece.len() + 5, 0));
    }

    #[tokio::test]
    async fn a_worker_does_not_wait_for_a_reader_that_has_stalled() {
        let (queue, _reader) = queue(Duration::from_millis(100));
        let piece = b"a line\n".repeat(1000);
        while queue.dropped_of(SLOT) < 10_000 {
            queue.pass(SLOT, &piece).await;
        }
        queue.flush();
    }

    #[test]
    fn lines_are_counted_whole_or_not() {
        assert_eq!([b"".as_slice(), b"a", b"a\n", b"a\nb"].map(lines_in), [0, 1, 1, 2]);
    }
}

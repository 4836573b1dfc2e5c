//! Closing descriptors of what other processes have, too, beside the master's loop.
//!
//! close(2) of the last copy of a TCP socket with SO_LINGER sleeps until its data is acknowledged or the time is over,
//! O_NONBLOCK or not (socket(7), inet_release in the kernel). A worker may set SO_LINGER on what it was given, may
//! close its own copy at any moment, and may send descriptors that we never asked for; so which copy is the last, and
//! whether its close sleeps, is not to be known beforehand. Therefore what others may have is closed by a thread of its
//! own.
//!
//! That thread does not sleep long either: a signal ends the wait in close(2), and the kernel then sends what is left
//! as it does after every close without SO_LINGER. A timer of the thread's own sends it one. Once a signal waits, all
//! other sockets of the same close_range(2) are closed without a wait. So what waits to be closed stays little, however
//! many sockets a worker has prepared.
//!
//! While a child is on its way from fork to exec it has a copy of everything, and is waited for: nothing is closed
//! meanwhile ([`hold`]), or else the child's copy could be the last one, and its exec sleep.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

use super::descriptors::close_some;

/// How long one close may sleep.
const PATIENCE: Duration = Duration::from_millis(2);
/// How long the thread lets more come together after it has closed something: under load it is woken by no one but its
/// own clock.
const GATHERING: Duration = Duration::from_millis(2);
/// Longest wait of [`hold`] for what is being closed: many times [`PATIENCE`].
const MAX_HOLD: Duration = Duration::from_millis(100);
/// What ends a close that sleeps. It means nothing to a process that has no handler for it, and few have one.
const WAKE: Signal = Signal::SIGURG;

static CLOSER: OnceLock<&'static Closer> = OnceLock::new();

/// Starts the thread. Until then, and in processes that do not start it, descriptors are closed where they are dropped.
///
/// An error is that of making the thread.
pub fn start() -> io::Result<()> {
    if CLOSER.get().is_none() {
        CLOSER.set(Closer::start()?).ok();
    }
    Ok(())
}

/// Closes descriptors without waiting for it. Leaves `descriptors` empty, with its room.
pub fn close_all(descriptors: &mut Vec<OwnedFd>) {
    match CLOSER.get() {
        _ if descriptors.is_empty() => {}
        Some(closer) => closer.take(descriptors.len(), |waiting| match waiting.is_empty() {
            true => std::mem::swap(waiting, descriptors),
            false => waiting.append(descriptors),
        }),
        None => super::descriptors::close_all(descriptors),
    }
}

/// Closes a descriptor without waiting for it.
pub fn close(descriptor: OwnedFd) {
    match CLOSER.get() {
        Some(closer) => closer.take(1, |waiting| waiting.push(descriptor)),
        None => drop(descriptor),
    }
}

/// How many descriptors wait to be closed.
pub fn waiting() -> usize {
    CLOSER.get().map_or(0, |closer| closer.count.load(Ordering::Relaxed))
}

/// Has nothing closed as long as the result lives. Waits for what is being closed, a few milliseconds at most.
pub fn hold() -> Hold {
    Hold(CLOSER.get().copied().inspect(|closer| closer.hold()))
}

/// Nothing is closed while this lives.
#[derive(Debug)]
pub struct Hold(Option<&'static Closer>);

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(closer) = self.0 {
            closer.release();
        }
    }
}

/// A descriptor of something that other processes may have, too, or have put into: dropping it never waits.
#[derive(Debug)]
pub struct SharedFd(Option<OwnedFd>);

impl SharedFd {
    /// Another owner, which must not wait either.
    pub fn into_owned(mut self) -> OwnedFd {
        // It is taken only by functions that consume the value.
        self.0.take().unwrap_or_else(|| unreachable!("it is there until it is dropped"))
    }
}

impl From<OwnedFd> for SharedFd {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Some(descriptor))
    }
}

impl AsFd for SharedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().map_or_else(|| unreachable!("it is there until it is dropped"), AsFd::as_fd)
    }
}

impl Drop for SharedFd {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(close);
    }
}

/// Descriptors that came from another process: dropping them never waits.
#[derive(Debug, Default)]
pub struct SharedFds(pub Vec<OwnedFd>);

impl SharedFds {
    /// The only one; otherwise all of them as they are.
    pub fn into_one(mut self) -> Result<SharedFd, Self> {
        match self.0.pop() {
            Some(descriptor) if self.0.is_empty() => Ok(descriptor.into()),
            last => {
                self.0.extend(last);
                Err(self)
            }
        }
    }

    /// Closes them, and keeps the room.
    pub fn clear(&mut self) {
        close_all(&mut self.0);
    }
}

impl Drop for SharedFds {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The thread, as others see it.
#[derive(Debug, Default)]
struct Closer {
    state: Mutex<CloserState>,
    changed: Condvar,
    /// Descriptors that are not closed yet.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct CloserState {
    waiting: Vec<OwnedFd>,
    /// The thread waits for a signal to go on.
    idle: bool,
    /// The thread is in a system call that closes.
    closing: bool,
    /// Nothing may be closed, by so many.
    holds: usize,
}

impl Closer {
    fn start() -> io::Result<&'static Self> {
        // One for the life of the process, as its thread.
        let closer: &'static Self = Box::leak(Box::default());
        thread::Builder::new().name("haft-close".to_owned()).spawn(|| closer.run())?;
        Ok(closer)
    }

    fn state(&self) -> MutexGuard<'_, CloserState> {
        // Whatever panicked left it whole: nothing in here is changed in two steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, CloserState>) -> MutexGuard<'a, CloserState> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes so many descriptors over.
    fn take(&self, count: usize, add_to: impl FnOnce(&mut Vec<OwnedFd>)) {
        self.count.fetch_add(count, Ordering::Relaxed);
        let mut state = self.state();
        add_to(&mut state.waiting);
        if state.idle && state.holds == 0 {
            state.idle = false;
            drop(state);
            self.changed.notify_all();
        }
    }

    fn hold(&self) {
        let mut state = self.state();
        state.holds += 1;
        // Were it over nevertheless, a child's exec might wait: that costs time, nothing else.
        drop(self.changed.wait_timeout_while(state, MAX_HOLD, |state| state.closing));
    }

    fn release(&self) {
        self.state().holds -= 1;
        self.changed.notify_all();
    }

    fn run(&self) -> ! {
        let mut alarm = WakeTimer::new();
        let mut batch = Vec::new();
        loop {
            let mut state = self.state();
            while state.waiting.is_empty() || state.holds > 0 {
                state.idle = true;
                state = self.wait(state);
            }
            state.idle = false;
            std::mem::swap(&mut state.waiting, &mut batch);
            drop(state);
            batch.sort_unstable_by_key(AsRawFd::as_raw_fd);
            alarm.set(Some(PATIENCE));
            while !batch.is_empty() {
                self.close_some(&mut batch);
            }
            alarm.set(None);
            thread::sleep(GATHERING);
        }
    }

    /// One system call's worth.
    fn close_some(&self, batch: &mut Vec<OwnedFd>) {
        let mut state = self.state();
        while state.holds > 0 {
            state = self.wait(state);
        }
        state.closing = true;
        drop(state);
        let before = batch.len();
        close_some(batch);
        self.count.fetch_sub(before - batch.len(), Ordering::Relaxed);
        let mut state = self.state();
        state.closing = false;
        if state.holds > 0 {
            self.changed.notify_all();
        }
    }
}

/// Ends the calling thread's sleep in system calls, again and again while it is set.
struct WakeTimer(Option<Timer>);

impl WakeTimer {
    fn new() -> Self {
        let alarm = Self::for_this_thread();
        if let Err(errno) = alarm {
            tracing::warn!(%errno, "no timer for the thread that closes connections: it may sleep as long as a worker wants");
        }
        Self(alarm.ok())
    }

    fn for_this_thread() -> nix::Result<Timer> {
        extern "C" fn nothing(_: libc::c_int) {}
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler does nothing, so whatever it interrupts is as it was.
        unsafe { sigaction(WAKE, &action) }?;
        // Signals that are sent to the process are for its other threads.
        let mut others = SigSet::all();
        others.remove(WAKE);
        others.thread_set_mask()?;
        let notify = SigevNotify::SigevThreadId { signal: WAKE, thread_id: gettid().as_raw(), si_value: 0 };
        Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))
    }

    fn set(&mut self, every: Option<Duration>) {
        let Some(timer) = &mut self.0 else { return };
        let expiration = Expiration::Interval(every.unwrap_or_default().into());
        // It can only fail for wrong arguments.
        timer.set(expiration, TimerSetTimeFlags::empty()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    /// Clients that read nothing. Their connections end with them: another test's child, on its way from fork to exec,
    /// may have copies of both ends, and sleep until then.
    struct Clients(Vec<TcpStream>);

    impl Drop for Clients {
        fn drop(&mut self) {
            // SAFETY: plain data, for which zero is a value.
            let mut nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
            nowhere.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
            let length = size_of::<libc::sockaddr>() as libc::socklen_t;
            for client in &self.0 {
                // SAFETY: an open socket, and an address of that length. connect(2) so dissolves the connection,
                // whatever copies of it there are.
                unsafe { libc::connect(client.as_raw_fd(), &raw const nowhere, length) };
            }
        }
    }

    /// Connections whose close sleeps for a minute.
    fn lingering(count: usize) -> (Vec<OwnedFd>, Clients) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let pair = |_| {
            let client = TcpStream::connect(address).expect("connect");
            let (mut accepted, _) = listener.accept().expect("accept");
            socket2::SockRef::from(&accepted).set_linger(Some(Duration::from_secs(60))).expect("linger");
            accepted.set_nonblocking(true).expect("non-blocking");
            while accepted.write(&[0; 1 << 16]).is_ok() {}
            (OwnedFd::from(accepted), client)
        };
        let (sockets, clients) = (0..count).map(pair).unzip();
        (sockets, Clients(clients))
    }

    fn wait_until_closed(closer: &Closer) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while closer.count.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < deadline, "{closer:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn sockets_whose_close_would_sleep_keep_neither_the_caller_nor_others_waiting() {
        let closer = Closer::start().expect("a thread");
        let (mut sockets, clients) = lingering(12);
        // Each alone, and with a gap: no two neighbours.
        let other = OwnedFd::from(File::open("/dev/null").expect("open"));
        sockets.drain(..).for_each(|socket| closer.take(1, |waiting| waiting.push(socket)));
        closer.take(1, |waiting| waiting.push(other));
        wait_until_closed(closer);
        drop(clients);
    }

    #[test]
    fn what_was_written_still_reaches_its_client() {
        let closer = Closer::start().expect("a thread");
        let (mut sockets, mut clients) = lingering(1);
        closer.take(1, |waiting| waiting.append(&mut sockets));
        wait_until_closed(closer);
        let read = std::io::copy(&mut clients.0[0], &mut std::io::sink()).expect("an orderly end");
        assert!(read >= 1 << 16, "{read}");
    }

    #[test]
    fn nothing_is_closed_while_it_is_held() {
        let closer = Closer::start().expect("a thread");
        let (here, there) = std::os::unix::net::UnixStream::pair().expect("pair");
        closer.hold();
        closer.take(1, |waiting| waiting.push(here.into()));
        there.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
        assert!(io::Read::read(&mut &there, &mut [0]).is_err(), "still open");
        closer.release();
        there.set_read_timeout(None).expect("no time-out");
        assert_eq!(io::Read::read(&mut &there, &mut [0]).expect("the end"), 0);
        wait_until_closed(closer);
    }

    #[test]
    fn one_that_came_alone_is_told_from_none_and_from_several() {
        let some = |count| SharedFds((0..count).map(|_| File::open("/dev/null").expect("open").into()).collect());
        assert_eq!(
            [0, 1, 2].map(|count| some(count).into_one().map_err(|all| all.0.len()).err()),
            [Some(0), None, Some(2)]
        );
    }
}

//! Starting a program that takes its listeners over as systemd passes them (sd_listen_fds(3)): descriptors from 3 on,
//! `LISTEN_FDS`, `LISTEN_FDNAMES`, and `LISTEN_PID`, which is the number of the process that the program will be and so
//! is known only in the child.
//!
//! Between fork and exec nothing may be allocated. So all is made before the fork, with room for the number, and the
//! child only moves the descriptors, writes the digits and becomes the program.

use std::env;
use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr;

use libc::c_char;

use super::descriptors::set_soft_limit;
use super::placeholder;

/// The number of the first descriptor (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// Variables meant for haft itself, from a service manager or another haft, and not for the program.
const NOT_PASSED_ON: [&str; 15] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "FDSTORE",
    "HAFT_CHANNEL_FD",
    "HAFT_LISTEN_FDS",
    "HAFT_ROOMS_FD",
    "HAFT_BUILTIN",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
];
/// The variables of haft's own flags begin like this.
const OWN_FLAGS: &[u8] = b"HAFT_FLAG_";

/// The names in this process's environment that a program does not get.
pub(super) fn not_passed_on() -> impl Iterator<Item = OsString> {
    env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| NOT_PASSED_ON.iter().any(|it| name == it) || name.as_bytes().starts_with(OWN_FLAGS))
}

/// Digits of the greatest process number, and the end of the text.
const ROOM: usize = 11;

/// A listener that a program takes over, by the name that it is to have there.
#[derive(Debug, Clone)]
pub struct Passed<'a> {
    /// The listener.
    pub listener: BorrowedFd<'a>,
    /// Without a colon.
    pub name: String,
}

/// The numbers of descriptors that a program expects its listeners under, kept from being given to anything else in
/// this process. What was there before it stays.
///
/// The child's own descriptors that std makes for a moment, such as the pipe that reports a failed exec, would
/// otherwise be lost to the listeners.
#[derive(Debug)]
pub struct Reserved(#[expect(dead_code, reason = "held, never used")] Vec<OwnedFd>);

impl Reserved {
    /// Keeps the numbers of so many listeners. To be called before anything is opened that may be closed again.
    pub fn new(listeners: usize) -> io::Result<Self> {
        let end = FIRST.saturating_add(RawFd::try_from(listeners).unwrap_or(RawFd::MAX));
        let mut held = Vec::new();
        loop {
            // The kernel gives the lowest number that is free.
            let next = placeholder::new()?;
            if next.as_raw_fd() >= end {
                return Ok(Self(held));
            }
            held.push(next);
        }
    }
}

/// Everything that the child needs to become the program.
pub(super) struct Activation {
    program: CString,
    arguments: ExecStrings,
    environment: ExecStrings,
    /// The last text of `environment`.
    pid: PidText,
    listeners: Vec<RawFd>,
    copies: Vec<RawFd>,
}

/// Texts as execve(2) wants them: pointers, with a null at the end. They are owned by these pointers alone, so that
/// neither moving this nor anything else makes the pointers stale.
struct ExecStrings {
    pointers: Vec<*mut c_char>,
    /// So many from the front on are owned.
    owned: usize,
}

impl ExecStrings {
    /// `last`: another owner's, which lives as long.
    fn new(texts: Vec<CString>, last: Option<*mut c_char>) -> Self {
        let owned = texts.len();
        let pointers = texts.into_iter().map(CString::into_raw).chain(last).chain([ptr::null_mut()]);
        Self { pointers: pointers.collect(), owned }
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr().cast()
    }
}

impl Drop for ExecStrings {
    fn drop(&mut self) {
        for text in self.pointers.drain(..self.owned) {
            // SAFETY: `new` has it from `CString::into_raw`, and nothing has changed it.
            drop(unsafe { CString::from_raw(text) });
        }
    }
}

/// `LISTEN_PID=`, and room for the number, behind a pointer that alone owns it.
struct PidText(*mut [u8; PidText::LEN]);

impl PidText {
    const NAME: &'static [u8] = b"LISTEN_PID=";
    const LEN: usize = Self::NAME.len() + ROOM;

    fn new() -> Self {
        let mut text = Box::new([0; Self::LEN]);
        text[..Self::NAME.len()].copy_from_slice(Self::NAME);
        Self(Box::into_raw(text))
    }

    fn set(&mut self, pid: libc::pid_t) {
        // SAFETY: it is there until this is dropped, and nothing reads it meanwhile.
        let text = unsafe { &mut *self.0 };
        // It has room for any number, and what is behind the digits is zero.
        write!(&mut text[Self::NAME.len()..], "{pid}").ok();
    }
}

impl Drop for PidText {
    fn drop(&mut self) {
        // SAFETY: `new` has it from `Box::into_raw`.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

// SAFETY: all pointers lead to what the value itself owns, wherever it is.
unsafe impl Send for Activation {}
// SAFETY: nothing can be done with a shared reference to it: all is private, and the only method that follows the
// pointers wants it exclusively.
unsafe impl Sync for Activation {}

impl Activation {
    /// `command`: program and arguments. `environment` is added to this process's own.
    ///
    /// An error (InvalidInput): a text with a NUL, or no program.
    pub(super) fn new(command: &[String], environment: &[(&str, String)], passed: &[Passed<'_>]) -> io::Result<Self> {
        let program = CString::new(command.first().ok_or(io::ErrorKind::InvalidInput)?.as_str())?;
        let names = passed.iter().map(|passed| passed.name.as_str()).collect::<Vec<_>>().join(":");
        let added = [("LISTEN_FDS", passed.len().to_string()), ("LISTEN_FDNAMES", names)];
        let all = || environment.iter().chain(&added);
        let kept_back: Vec<_> = not_passed_on().collect();
        let is_set = |name: &OsString| kept_back.contains(name) || all().any(|(it, _)| name == it);
        let inherited = env::vars_os().filter(|(name, _)| !is_set(name));
        let mut variables = Vec::new();
        for (name, value) in inherited {
            variables.push(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?);
        }
        for (name, value) in all() {
            variables.push(CString::new(OsString::from(format!("{name}={value}")).into_vec())?);
        }
        let words = command.iter().map(|word| CString::new(word.as_str())).collect::<Result<Vec<_>, _>>()?;
        let pid = PidText::new();
        let listeners: Vec<RawFd> = passed.iter().map(|passed| passed.listener.as_raw_fd()).collect();
        Ok(Self {
            program,
            arguments: ExecStrings::new(words, None),
            environment: ExecStrings::new(variables, Some(pid.0.cast())),
            pid,
            copies: listeners.clone(),
            listeners,
        })
    }

    /// Becomes the program, with this soft limit on descriptors. To be called in the child, after fork; allocates
    /// nothing, and returns only if it fails.
    pub(super) fn become_it(&mut self, descriptors: u64) -> io::Error {
        let end = FIRST + self.listeners.len() as RawFd;
        // A listener may be where another one belongs: all are moved out of the way first.
        for (listener, copy) in self.listeners.iter().zip(&mut self.copies) {
            // SAFETY: a system call with numbers; the child has this descriptor.
            *copy = unsafe { libc::fcntl(*listener, libc::F_DUPFD_CLOEXEC, end) };
            if *copy == -1 {
                return io::Error::last_os_error();
            }
        }
        for (number, copy) in (FIRST..).zip(&self.copies) {
            // SAFETY: as above. What the number stood for is the parent's, or reserved: nothing of the child's.
            if unsafe { libc::dup2(*copy, number) } == -1 {
                return io::Error::last_os_error();
            }
        }
        // Not before: the copies' numbers may have been above it.
        if let Err(error) = set_soft_limit(descriptors) {
            return error;
        }
        // SAFETY: it has no arguments and cannot fail.
        self.pid.set(unsafe { libc::getpid() });
        // SAFETY: all three point to texts that end, in lists that end with a null.
        unsafe {
            libc::execvpe(self.program.as_ptr(), self.arguments.as_ptr(), self.environment.as_ptr());
        }
        io::Error::last_os_error()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn numbers_that_are_reserved_are_given_to_nobody() {
        let reserved = Reserved::new(5).expect("reserved");
        let next = placeholder::new().expect("a number");
        assert!(next.as_raw_fd() >= FIRST + 5);
        drop(reserved);
    }

    #[test]
    fn a_text_that_no_process_can_have_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let passed = [Passed { listener: listener.as_fd(), name: "a".to_owned() }];
        for command in [vec![], vec!["a\0b".to_owned()], vec!["a".to_owned(), "\0".to_owned()]] {
            assert!(Activation::new(&command, &[], &passed).is_err());
        }
    }
}

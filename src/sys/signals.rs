//! Signals that a process ignores, and how a program starts without what its parent does with signals.

use std::io;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, signal, sigprocmask};
use nix::unistd::{Pid, getpgid, getpgrp};

/// Signals that end a process by default though nothing is wrong with it: timers, news of descriptors or of the power
/// supply, and those for programs to agree on. SIGXFSZ is among them because a write then fails with EFBIG instead.
///
/// Those of a crash (SIGSEGV, SIGABRT, SIGSYS and the like) are not: their sender wants an end with a core file.
const HARMLESS: [Signal; 9] = [
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGIO,
    Signal::SIGSTKFLT,
    Signal::SIGPWR,
    Signal::SIGXFSZ,
];

/// From here on, this process ignores what would end it for no reason: timers and the like, SIGXCPU and real-time ones.
///
/// What is handled afterwards is handled as ever. Programs that [`super::process::launch`] starts do not inherit it.
pub fn ignore_harmless() -> io::Result<()> {
    for harmless in HARMLESS.into_iter().chain([Signal::SIGXCPU]) {
        // SAFETY: SIG_IGN runs no code.
        unsafe { signal(harmless, SigHandler::SigIgn) }?;
    }
    for real_time in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // SAFETY: SIG_IGN runs no code, and the numbers are those that the C library leaves to programs.
        if unsafe { libc::signal(real_time, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ignores every signal that can be ignored.
pub fn ignore_all() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_IGN runs no code. It fails for SIGKILL, SIGSTOP and the C library's own, which is as it must be.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

/// Lets a program start with every signal as it is by default and none blocked, whatever this process, or its own
/// parent, has made of them. For a child between fork and exec: it makes system calls only.
pub(super) fn reset() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of ours. It fails for SIGKILL, SIGSTOP and the C library's own.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// Whether this process is in the foreground of its controlling terminal, where keys such as Ctrl-C become signals.
pub fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    terminal.is_ok_and(|terminal| nix::unistd::tcgetpgrp(&terminal) == Ok(getpgrp()))
}

/// Sends a signal to one process of the group of `leader`. Returns whether there is one.
pub fn signal_of_group(process: u32, leader: u32, signal: Signal) -> bool {
    let (Ok(process @ 1..), Ok(leader)) = (i32::try_from(process), i32::try_from(leader)) else { return false };
    let process = Pid::from_raw(process);
    getpgid(Some(process)) == Ok(Pid::from_raw(leader)) && kill(process, signal).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    use super::*;

    /// How a shell that ignores no signals ends when it signals itself.
    fn sent_itself(number: i32, program_starts: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> ExitStatus {
        use std::os::unix::process::CommandExt;
        let mut shell = Command::new("python3");
        shell.args(["-S", "-E", "-c", &format!("import os; os.kill(os.getpid(), {number})")]);
        // SAFETY: the closures below make system calls only.
        unsafe { shell.pre_exec(program_starts) };
        shell.status().expect("python3")
    }

    #[test]
    fn what_ends_a_process_for_no_reason_is_ignored_and_a_program_does_not_inherit_that() {
        let numbers = HARMLESS.map(|harmless| harmless as i32);
        for number in numbers.into_iter().chain([libc::SIGXCPU, libc::SIGRTMIN(), libc::SIGRTMAX()]) {
            let ignored = sent_itself(number, ignore_harmless);
            assert!(ignored.success() || number == libc::SIGXFSZ, "{number}: {ignored}");
            let inherited = sent_itself(number, || ignore_harmless().and_then(|()| reset()));
            // Python ignores this one by itself.
            let expected = (number != libc::SIGXFSZ).then_some(number);
            assert_eq!(inherited.signal(), expected, "{number}: {inherited}");
        }
    }

    #[test]
    fn a_crash_stays_one() {
        for number in [libc::SIGABRT, libc::SIGSEGV, libc::SIGSYS] {
            assert_eq!(sent_itself(number, ignore_harmless).signal(), Some(number));
        }
    }
}

//! Writing to one of haft's outputs, in a thread that may wait for its reader.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;

use crate::route::Slot;

/// Where a piece of output comes from: a slot's workers, or haft itself.
pub(super) type LogSource = Option<Slot>;

/// Most that is written at a time. A pipe takes so much as one piece (PIPE_BUF, pipe(7)): lines do not mix with those of
/// other processes that write to it.
const PIECE: usize = 4096;

/// Which of haft's own outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The log file, in place of standard error.
    File,
}

impl LogTarget {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "standard output",
            Self::Stderr => "standard error",
            Self::File => "the log file",
        }
    }

    /// Whether text may have colours there: on a terminal that has some.
    pub fn is_colourful(self) -> bool {
        let is_terminal = match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
            Self::File => false,
        };
        is_terminal && terminal_has_colours()
    }
}

/// Whether the environment says that a terminal has colours, and that they are wanted (no-color.org).
pub fn terminal_has_colours() -> bool {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    variable("NO_COLOR").is_empty() && has_colours(&variable("TERM").to_string_lossy())
}

/// Whether terminals of this kind have colours: those of terminfo(5) without, and `dumb` ones, have none.
fn has_colours(term: &str) -> bool {
    let is_old = term.starts_with("vt") && term != "vt525";
    term != "dumb" && !is_old && !term.ends_with("-m") && !term.ends_with("-mono")
}

/// Signals go to the thread that waits for them. A terminal that stops writers in the background (`stty tostop`) does
/// not stop one that blocks SIGTTOU (termios(3)): the service would stand still with it.
pub(super) fn leave_signals_to_others() {
    // It fails for arguments that do not exist only.
    SigSet::all().thread_block().ok();
}

/// Where an output stands: at the beginning of a line, or in the middle of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinePosition {
    Beginning,
    /// Begun by this source, which may go on.
    Begun(LogSource),
    /// Its end was lost.
    Cut,
}

/// An output, and where its last line stands.
#[derive(Debug)]
pub(super) struct LogOutput<F> {
    descriptor: F,
    line: LinePosition,
}

impl<F: AsFd> LogOutput<F> {
    pub(super) fn new(descriptor: F) -> Self {
        Self { descriptor, line: LinePosition::Beginning }
    }

    /// Writes a piece, in lines of its own: a line that another source has begun is ended first. Calls `progress` each
    /// time the reader has taken something. Yields how many bytes were taken: less than all if the output fails.
    pub(super) fn write(&mut self, bytes: &[u8], source: LogSource, progress: impl Fn()) -> usize {
        if self.line != LinePosition::Beginning && self.line != LinePosition::Begun(source) {
            if self.write_some(b"\n") == 0 {
                return 0;
            }
            self.line = LinePosition::Beginning;
        }
        let mut written = 0;
        while written < bytes.len() {
            let len = self.write_some(piece(&bytes[written..]));
            if len == 0 {
                break;
            }
            written += len;
            self.line = if bytes[written - 1] == b'\n' { LinePosition::Beginning } else { LinePosition::Begun(source) };
            progress();
        }
        if written < bytes.len() && self.line != LinePosition::Beginning {
            self.line = LinePosition::Cut;
        }
        written
    }

    /// Waits until the reader takes something, and yields how many bytes it took: none if the output fails.
    fn write_some(&self, bytes: &[u8]) -> usize {
        loop {
            match nix::unistd::write(&self.descriptor, bytes) {
                Ok(len) => return len,
                Err(Errno::EINTR) => {}
                // Another process that shares the output has made it non-blocking.
                Err(Errno::EAGAIN) if self.wait() => {}
                Err(_) => return 0,
            }
        }
    }

    fn wait(&self) -> bool {
        let mut asked = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLOUT)];
        matches!(poll(&mut asked, PollTimeout::NONE), Ok(_) | Err(Errno::EINTR))
    }
}

/// What is written at a time: whole lines if there is the end of one.
fn piece(bytes: &[u8]) -> &[u8] {
    let most = &bytes[..bytes.len().min(PIECE)];
    match memchr::memrchr(b'\n', most) {
        Some(end) if most.len() < bytes.len() => &most[..=end],
        _ => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    const HAFT: LogSource = None;
    const WORKER: LogSource = Some(Slot(1));

    #[test]
    fn old_and_dumb_terminals_have_no_colours() {
        for (term, has) in [
            ("xterm-256color", true),
            ("linux", true),
            ("tmux", true),
            ("", true),
            ("vt525", true),
            ("vt100", false),
            ("vt220-8bit", false),
            ("dumb", false),
            ("screen-m", false),
            ("xterm-mono", false),
        ] {
            assert_eq!(has_colours(term), has, "{term}");
        }
    }

    #[test]
    fn a_line_that_another_source_has_begun_is_ended_first() {
        let (read, write) = nix::unistd::pipe().expect("pipe");
        let mut output = LogOutput::new(write);
        for (bytes, source) in
            [("a worker's ", WORKER), ("line\nand half a ", WORKER), ("haft's\n", HAFT), ("the rest\n", WORKER)]
        {
            assert_eq!(output.write(bytes.as_bytes(), source, || ()), bytes.len());
        }
        drop(output);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).expect("text");
        assert_eq!(text, "a worker's line\nand half a \nhaft's\nthe rest\n");
    }

    #[test]
    fn an_output_that_is_full_or_gone_takes_nothing_and_harms_nothing() {
        let full = File::options().write(true).open("/dev/full").expect("open");
        assert_eq!(LogOutput::new(full).write(b"no space\n", HAFT, || ()), 0);
        let (read, write) = nix::unistd::pipe().expect("pipe");
        drop(read);
        assert_eq!(LogOutput::new(write).write(b"no reader\n", HAFT, || ()), 0);
    }

    #[test]
    fn an_output_that_another_process_has_made_non_blocking_is_waited_for() {
        let (read, write) = nix::unistd::pipe().expect("pipe");
        nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).expect("fcntl");
        let bytes = "a line of some length\n".repeat(20_000);
        let writer = std::thread::spawn(move || {
            let mut output = LogOutput::new(write);
            (output.write(bytes.as_bytes(), HAFT, || ()), bytes)
        });
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).expect("text");
        let (written, bytes) = writer.join().expect("the writer");
        assert!(written == bytes.len() && text == bytes, "{written} of {}", bytes.len());
    }

    #[test]
    fn pieces_are_whole_lines_where_there_are_any() {
        let text = [b"x".repeat(PIECE - 2), b"\ny\n".to_vec()].concat();
        assert_eq!(piece(&text).len(), PIECE - 1);
        assert_eq!(piece(&b"x".repeat(2 * PIECE)).len(), PIECE);
        assert_eq!(piece(b"one\nhalf"), b"one\nhalf");
    }
}

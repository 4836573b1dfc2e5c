//! A standard input that stays open and never has anything to read.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Stdio;

/// What a worker reads from: a pipe to which it alone holds the writing end, so that its end never comes.
///
/// A program that takes the end of its input for the wish that it end would do so at once with `/dev/null`. On Linux a
/// pipe that is opened for reading and writing has both ends in one descriptor (fifo(7)); the child's own descriptor is
/// the only one, so no other process can write to it. Where `/proc` is not mounted it is `/dev/null` after all.
pub(super) fn silent() -> Stdio {
    let both_ends = || {
        let (reader, _writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        File::options().read(true).write(true).open(format!("/proc/self/fd/{}", reader.as_raw_fd()))
    };
    both_ends().map_or_else(|_: std::io::Error| Stdio::null(), Stdio::from)
}

/// Whether it is `/dev/null` that workers read from, which ends at once.
pub fn ends_at_once() -> bool {
    !std::path::Path::new("/proc/self/fd").exists()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn a_program_that_waits_for_the_end_of_its_input_waits() {
        let mut program = Command::new("sh");
        program.args(["-c", "timeout 0.3 cat; echo $?"]).stdin(super::silent()).stdout(Stdio::piped());
        let mut program = program.spawn().expect("sh");
        let mut written = String::new();
        program.stdout.take().expect("piped").read_to_string(&mut written).expect("text");
        program.wait().expect("its end");
        assert_eq!(written, "124\n", "cat was ended by timeout");
    }
}

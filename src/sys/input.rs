//! What a process is given to read from that has nothing to read.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Stdio;

/// What a worker reads from: a pipe to which it alone holds the writing end, so that its end never comes.
///
/// A program that takes the end of its input for the wish that it end would do so at once with `/dev/null`. On Linux a
/// pipe that is opened for reading and writing has both ends in one descriptor (fifo(7)); the child's own descriptor is
/// the only one, so no other process can write to it. Where `/proc` is not mounted it ends at once after all.
pub(super) fn silent() -> io::Result<Stdio> {
    let both_ends = || {
        let (reader, _writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        File::options().read(true).write(true).open(format!("/proc/self/fd/{}", reader.as_raw_fd()))
    };
    both_ends().map(Stdio::from).or_else(|_: io::Error| nowhere())
}

/// A standard stream that leads nowhere: `/dev/null`, or on a root without devices a pipe that has no other end.
pub(super) fn nowhere() -> io::Result<Stdio> {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        return Ok(null.into());
    }
    let (reader, _writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok(reader.into())
}

/// Whether what workers read from ends at once.
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
        program.args(["-c", "timeout 0.3 cat; echo $?"]).stdin(super::silent().expect("a pipe")).stdout(Stdio::piped());
        let mut program = program.spawn().expect("sh");
        let mut written = String::new();
        program.stdout.take().expect("piped").read_to_string(&mut written).expect("text");
        program.wait().expect("its end");
        assert_eq!(written, "124\n", "cat was ended by timeout");
    }
}

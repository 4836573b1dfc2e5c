//! A standard error that is never read, or only later.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{Haft, Log, eventually};

/// A pipe that is full.
pub fn full_pipe() -> (File, OwnedFd) {
    let (read, write) = nix::unistd::pipe().expect("pipe");
    fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("fcntl");
    let mut writer = File::from(write.try_clone().expect("a copy"));
    for piece in [4096, 1] {
        while writer.write(&b"x".repeat(piece)).is_ok() {}
    }
    // It belongs to all that write to the pipe.
    fcntl(&write, FcntlArg::F_SETFL(OFlag::empty())).expect("fcntl");
    (read.into(), write)
}

impl Haft {
    /// From now on its log is what comes out of this.
    pub fn read_log(&mut self, output: impl Read + Send + 'static) {
        self.log = Log::of(output);
    }

    /// Waits until a connection would find a worker, and every worker is ready.
    pub fn wait_until_ready(&mut self) {
        eventually("a ready worker", || {
            self.assert_running();
            self.page("/readyz").filter(|(code, _)| *code == 200)
        });
        self.wait("all workers ready", |status| status.all_ready());
        self.note_workers();
    }

    /// A number of the metrics: the line begins so.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, page) = eventually("the metrics", || self.page("/metrics"));
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {page}"));
        line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    }
}

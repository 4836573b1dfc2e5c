//! How many system calls processes make while something runs: counted by perf, which hardly slows them down, else by
//! strace, which does (and so lets them find more to do at a time).

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::Outcome;
use crate::noise::calibrate;
use crate::process::{Program, until};

/// How long a tool may take to be ready.
const TO_ATTACH: Duration = Duration::from_secs(10);

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Perf,
    Strace,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Self::Perf => "perf stat",
            Self::Strace => "strace -c -f",
        }
    }

    /// The better one of those that work here, or why none does.
    pub fn choose(folder: &Path) -> Result<Self, String> {
        let attempt = |tool: Self| {
            let script = "while :; do read nothing </dev/null; done";
            let busy = Program::start(folder, "busy", Command::new("sh").args(["-c", script]))?;
            let calls = tool.count(folder, &[busy.pid()], || {
                calibrate();
                Ok(())
            })?;
            if calls > 0 { Ok(()) } else { Outcome::Err("it counts nothing".into()) }
        };
        let Err(perf) = attempt(Self::Perf) else { return Ok(Self::Perf) };
        let Err(strace) = attempt(Self::Strace) else { return Ok(Self::Strace) };
        Err(format!("perf: {perf}; strace: {strace}"))
    }

    /// The system calls of the processes while `work` runs.
    pub fn count(self, folder: &Path, pids: &[i32], work: impl FnOnce() -> Outcome<()>) -> Outcome<u64> {
        match self {
            Self::Perf => perf(folder, pids, work),
            Self::Strace => strace(folder, pids, work),
        }
    }
}

fn perf(folder: &Path, pids: &[i32], work: impl FnOnce() -> Outcome<()>) -> Outcome<u64> {
    let (control, answers) = (Fifo::make(folder, "perf.control")?, Fifo::make(folder, "perf.answers")?);
    let list: Vec<_> = pids.iter().map(i32::to_string).collect();
    // It starts with counting off (-D -1) and answers each order.
    let mut command = Command::new("perf");
    command.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-D", "-1"]);
    command.args(["--control", "fifo:perf.control,perf.answers", "-p", &list.join(","), "-o", "perf.counts"]);
    let mut program = Program::start(folder, "perf.log", &mut command)?;
    control.write(b"enable\n")?;
    answers.wait(&mut program)?;
    let worked = work();
    control.write(b"disable\n")?;
    answers.wait(&mut program)?;
    program.end(Signal::SIGINT);
    worked?;
    let counts = fs::read_to_string(folder.join("perf.counts"))?;
    let line = counts.lines().find(|line| line.contains("raw_syscalls")).ok_or_else(|| program.output())?;
    match line.split(',').next().unwrap_or_default() {
        // So it writes of processes that were never on a CPU.
        "<not counted>" => Ok(0),
        count => count.parse().map_err(|_| format!("perf cannot count: {line}").into()),
    }
}

/// A named pipe that is open at both ends here, so that neither side waits for the other to open it.
struct Fifo(File);

impl Fifo {
    fn make(folder: &Path, name: &str) -> Outcome<Self> {
        let path = folder.join(name);
        fs::remove_file(&path).ok();
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(Self(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn write(&self, order: &[u8]) -> Outcome<()> {
        Ok((&self.0).write_all(order)?)
    }

    /// Waits for an answer.
    fn wait(&self, program: &mut Program) -> Outcome<()> {
        let there = until(TO_ATTACH, || {
            let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            program.ended().is_some() || poll(&mut polled, PollTimeout::from(50_u8)).is_ok_and(|ready| ready > 0)
        });
        if !there || program.ended().is_some() {
            return Err(format!("perf does not answer: {}", program.output()).into());
        }
        let length = (&self.0).read(&mut [0; 64])?;
        if length == 0 { Err("perf answers nothing".into()) } else { Ok(()) }
    }
}

fn strace(folder: &Path, pids: &[i32], work: impl FnOnce() -> Outcome<()>) -> Outcome<u64> {
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-o", "strace.counts"]);
    for pid in pids {
        command.args(["-p", &pid.to_string()]);
    }
    let mut program = Program::start(folder, "strace.log", &mut command)?;
    let attached = || program.output().matches("attached").count() >= pids.len();
    if !until(TO_ATTACH, attached) {
        return Err(format!("strace does not attach: {}", program.output()).into());
    }
    let worked = work();
    program.end(Signal::SIGINT);
    worked?;
    // Per cent, seconds, usecs/call, calls, perhaps errors, the name: the last line has the sums.
    let counts = fs::read_to_string(folder.join("strace.counts"))?;
    // There is no table when there were none.
    let Some(total) = counts.lines().rev().find(|line| line.trim_end().ends_with("total")) else { return Ok(0) };
    Ok(total.split_whitespace().nth(3).ok_or("an unknown form of strace's table")?.parse()?)
}

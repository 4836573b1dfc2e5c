//! What it costs to wake a process on another CPU, and nothing else: the least that hand-over adds to what a single client
//! waits, since the master wakes first and the worker after it.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::Outcome;

const TIMES: usize = 500;
/// So long each side has slept when it is woken: its CPU is idle by then, as with one client at a time.
const ASLEEP: Duration = Duration::from_micros(200);

/// The median of the microseconds from a write to a pipe to the end of the read on another CPU that waits for it. Nothing
/// where there is one CPU only.
pub fn across_cpus() -> Outcome<Option<f64>> {
    let usable = sched_getaffinity(Pid::from_raw(0))?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| usable.is_set(*cpu).unwrap_or(false));
    let (Some(here), Some(there)) = (cpus.next(), cpus.next()) else { return Ok(None) };
    let (mut from_here, mut to_there) = std::io::pipe()?;
    let (mut back, mut answer) = std::io::pipe()?;
    // Threads of their own, so that no other is bound to one CPU.
    let woken = thread::spawn(move || -> Outcome<()> {
        bind(there)?;
        while from_here.read(&mut [0])? > 0 {
            let read = Instant::now();
            thread::sleep(ASLEEP);
            answer.write_all(&(read.elapsed().as_nanos() as u64).to_le_bytes())?;
        }
        Ok(())
    });
    let waking = thread::spawn(move || -> Outcome<Vec<f64>> {
        bind(here)?;
        let once = |_| {
            let begun = Instant::now();
            to_there.write_all(&[0])?;
            let mut busy = [0; 8];
            back.read_exact(&mut busy)?;
            // Two wake-ups, there and back, and what the other side did between them.
            let both = begun.elapsed().saturating_sub(Duration::from_nanos(u64::from_le_bytes(busy)));
            Ok(both.as_secs_f64() * 1e6 / 2.0)
        };
        (0..TIMES).map(once).collect()
    });
    let mut each = waking.join().map_err(|_| "the waking thread panicked")??;
    woken.join().map_err(|_| "the woken thread panicked")??;
    each.sort_by(f64::total_cmp);
    Ok(each.get(each.len() / 2).copied())
}

fn bind(cpu: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

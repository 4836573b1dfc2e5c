//! How noisy the machine was, and what it is.

use std::fs;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::contender::Programs;

/// About ten milliseconds of arithmetic.
const STEPS: u64 = 5_000_000;

/// How many milliseconds the same computation took this time: on an idle machine it is always the same.
pub fn calibrate() -> f64 {
    let begun = Instant::now();
    let mut state = 1_u64;
    for _ in 0..STEPS {
        state = black_box(state).wrapping_mul(6_364_136_223_846_793_005).rotate_left(17) ^ 0x9e37;
    }
    black_box(state);
    begun.elapsed().as_secs_f64() * 1e3
}

/// Processes that were running or waiting for a CPU over the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(f64::NAN)
}

/// The share of all CPU time since boot, so far, that the host of a virtual machine gave to others: (stolen, all) in ticks.
pub fn stolen() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|number| number.parse().ok()).collect();
    (ticks.get(7).copied().unwrap_or(0), ticks.iter().sum())
}

/// The machine and the versions of what is compared.
pub fn machine(programs: &Programs) -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let first = |program: &str, arg: &str| {
        let output = Command::new(program).arg(arg).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().next().unwrap_or("absent").to_owned()
    };
    json!({
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "model": model.trim_start_matches([' ', '\t', ':']),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "haft": first(&programs.haft.to_string_lossy(), "--version"),
        "node": first("node", "--version"),
        "nginx": first("nginx", "-v"),
        "haproxy": first("haproxy", "-v"),
    })
}

//! Any header lines from a client, and what its proxy adds behind them.

#![no_main]

#[path = "../checks/forwarded.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));

//! Any bytes, looked at as a PROXY header.

#![no_main]

#[path = "../checks/proxy.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));

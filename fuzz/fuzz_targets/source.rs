//! Any bytes, looked through for the values by which a client can stick.

#![no_main]

#[path = "../checks/source.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));

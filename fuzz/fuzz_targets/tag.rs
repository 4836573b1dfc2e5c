//! Any bytes, read as a session id that may have a tag.

#![no_main]

#[path = "../checks/tag.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));

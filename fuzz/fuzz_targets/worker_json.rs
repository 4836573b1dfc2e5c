//! Whatever a worker writes in lines of JSON.

#![no_main]

mod worker;

use haft::node::wire::Serialization;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| worker::receive(Serialization::Json, bytes));

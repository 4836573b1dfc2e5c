//! Whatever a worker writes in V8's own format.

#![no_main]

mod worker;

use haft::node::wire::Serialization;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    worker::receive(Serialization::Advanced, bytes);
    // Once more as one value of a whole message, which is hard to come by otherwise.
    let mut message = vec![0];
    message.extend_from_slice(&(bytes.len() as u32 + 2).to_be_bytes());
    message.extend_from_slice(&[0xff, 15]);
    message.extend_from_slice(bytes);
    worker::receive(Serialization::Advanced, &message);
});

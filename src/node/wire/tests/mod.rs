//! Tests over the whole of the dialect.

mod advanced;
mod bounds;
mod conversation;
mod golden;
mod lane;
mod pairing;
mod real_node;
mod registry;

use super::message::WorkerMessage;
use super::{AddressType, IpcFrame, IpcReader, MAX_FRAME, Piece, Query, Serialization};

/// A message as a worker frames it.
fn framed(serialization: Serialization, body: &[u8]) -> Vec<u8> {
    match serialization {
        Serialization::Json => [body, b"\n"].concat(),
        Serialization::Advanced => [&(body.len() as u32).to_be_bytes(), body].concat(),
    }
}

/// The body of a message that is given as JSON.
fn body_of(serialization: Serialization, json: &str) -> Vec<u8> {
    let mut body = Vec::new();
    if serialization == Serialization::Advanced {
        body.extend_from_slice(&[0xff, 15]);
    }
    let value = serde_json::from_str(json).expect("JSON");
    super::compose::write_value(serialization, &value, &mut body);
    body
}

/// Gives the one frame that a message makes to a function.
fn with_frame<T>(serialization: Serialization, body: &[u8], use_it: impl FnOnce(&IpcFrame<'_>) -> T) -> T {
    let bytes = framed(serialization, body);
    let mut reader = IpcReader::new(serialization, MAX_FRAME);
    let mut frames = reader.take_in(&bytes);
    let Ok(Some(Piece::Frame(frame))) = frames.next() else { panic!("one frame") };
    use_it(&frame)
}

/// What `listen(port)` asks for.
fn tcp(port: u16) -> Query<'static> {
    Query {
        seq: 1,
        address: None,
        port: Some(port.into()),
        address_type: AddressType::Tcp4,
        index: 0,
        fd: None,
        flags: 0,
        backlog: None,
        readable_all: false,
        writable_all: false,
        data: None,
    }
}

/// A message as it is read.
fn read(serialization: Serialization, body: &[u8]) -> WorkerMessage<'_> {
    WorkerMessage::of_body(serialization, body).expect("a message")
}

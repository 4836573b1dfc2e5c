//! What Rust workers write into the messages that they send each other. Pure.
//!
//! ```text
//! | 'R' | length: 2 | topic: length | payload |    a message
//! | 'T' | (length: 2 | topic: length)*        |    all topics that the sender listens to
//! | 'Q' | (length: 2 | topic: length)*        |    the same, and the receiver is to send its own
//! | 'E' | (length: 4 | piece: length)*        |    of a program outside haft
//! ```
//!
//! Numbers are big-endian. Anything else is another program's.

use crate::protocol::rooms::EMITTED;

const MESSAGE: u8 = b'R';
const TOPICS: u8 = b'T';
const ASKING_TOPICS: u8 = b'Q';

/// A message's body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body<'b> {
    /// For those that listen to the topic.
    Message { topic: &'b str, payload: &'b [u8] },
    /// The topics that the sender listens to from now on. `asks`: it asks for those of the receiver.
    Topics { topics: Vec<&'b str>, asks: bool },
    /// What a program outside haft has published for clients: see [`super::Emitted`].
    Emitted { payload: &'b [u8] },
}

impl<'b> Body<'b> {
    /// Nothing, if it is none.
    pub(super) fn read(bytes: &'b [u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        match *kind {
            MESSAGE => {
                let topic = take_topic(&mut rest)?;
                Some(Self::Message { topic, payload: rest })
            }
            TOPICS | ASKING_TOPICS => {
                let mut topics = Vec::new();
                while !rest.is_empty() {
                    topics.push(take_topic(&mut rest)?);
                }
                Some(Self::Topics { topics, asks: *kind == ASKING_TOPICS })
            }
            EMITTED => Some(Self::Emitted { payload: rest }),
            _ => None,
        }
    }
}

fn take_topic<'b>(bytes: &mut &'b [u8]) -> Option<&'b str> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (topic, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    *bytes = rest;
    std::str::from_utf8(topic).ok()
}

/// Nothing, if the topic is longer than a length can say.
pub(super) fn message(topic: &str, payload: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(3 + topic.len() + payload.len());
    body.push(MESSAGE);
    put_topic(&mut body, topic)?;
    body.extend_from_slice(payload);
    Some(body)
}

/// Those that are too long are left out: nothing can be sent to them.
pub(super) fn topics<'t>(topics: impl Iterator<Item = &'t str>, asks: bool) -> Vec<u8> {
    let mut body = vec![if asks { ASKING_TOPICS } else { TOPICS }];
    topics.for_each(|topic| _ = put_topic(&mut body, topic));
    body
}

fn put_topic(body: &mut Vec<u8>, topic: &str) -> Option<()> {
    body.extend_from_slice(&u16::try_from(topic.len()).ok()?.to_be_bytes());
    body.extend_from_slice(topic.as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_can_be_read(topic in ".{0,20}", others in prop::collection::vec(".{0,20}", 0..5), payload: Vec<u8>, asks: bool) {
            let body = message(&topic, &payload).expect("short enough");
            prop_assert_eq!(Body::read(&body), Some(Body::Message { topic: &topic, payload: &payload }));
            let body = topics(others.iter().map(String::as_str), asks);
            prop_assert_eq!(Body::read(&body), Some(Body::Topics { topics: others.iter().map(String::as_str).collect(), asks }));
        }

        #[test]
        fn any_bytes_are_read(first in prop_oneof![Just(MESSAGE), Just(TOPICS), Just(ASKING_TOPICS), Just(EMITTED), any::<u8>()], rest in prop::collection::vec(0..4u8, 0..20)) {
            let _ = Body::read(&[&[first], &rest[..]].concat());
        }
    }

    #[test]
    fn a_topic_may_be_too_long() {
        let long = "x".repeat(70_000);
        assert_eq!(message(&long, b""), None);
        assert_eq!(topics([long.as_str(), "a"].into_iter(), false), topics(["a"].into_iter(), false));
    }
}

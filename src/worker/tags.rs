//! Tagging: a session id that leaves this worker names it, and the engine never sees the tag.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::Uri;
use http::uri::PathAndQuery;
use serde_json::value::RawValue;

use super::drain::{Drain, SETTLE};
use crate::protocol::{HostId, Reading, Slot, Tag, TagKey, Tagger};

/// Separates the packets of a payload (Engine.IO protocol 4).
const SEPARATOR: u8 = 0x1e;

/// Writes this worker's tag to session ids, and reads those that come back. Cheap to clone.
#[derive(Clone)]
pub struct Tags {
    tagger: Arc<Tagger>,
    pub(super) own: Tag,
    drain: Drain,
}

/// Whose a session id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SidOwner<'s> {
    /// It has no tag, or none that was made with this key: the engine knows it or not.
    Untagged,
    /// This worker's; this is what its engine calls it.
    Ours(&'s str),
    /// Another worker's.
    Another(Tag),
    /// Another host's.
    OtherHost(HostId),
}

/// What became of a request's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Untagged {
    /// Nothing: it has no tag.
    AsItWas,
    /// The same without this worker's tag.
    Ours(Uri),
    /// It has the tag of another worker.
    Another(Tag),
    /// It has the tag of another host.
    OtherHost(HostId),
}

impl Tags {
    pub(super) fn new(tagger: Tagger, own: Tag, drain: Drain) -> Self {
        Self { tagger: Arc::new(tagger), own, drain }
    }

    /// Whose the session id is.
    pub(super) fn owner_of<'s>(&self, sid: &'s str) -> SidOwner<'s> {
        match self.tagger.reading(sid.as_bytes()) {
            Reading::Untagged => SidOwner::Untagged,
            // What precedes the tag is text, since the whole is.
            Reading::Here(base, tag) if tag == self.own => {
                sid.get(..base.len()).map_or(SidOwner::Untagged, SidOwner::Ours)
            }
            Reading::Here(_, tag) => SidOwner::Another(tag),
            Reading::Elsewhere(host) => SidOwner::OtherHost(host),
        }
    }

    /// Takes the tag out of a request's address: of the first `sid` in its query, which is the one that engines look
    /// at. Everything else stays as it came, to the byte.
    pub fn untagged(&self, uri: &Uri) -> Untagged {
        let Some(sid) = uri.query().and_then(sid) else { return Untagged::AsItWas };
        match self.owner_of(sid) {
            SidOwner::Untagged => Untagged::AsItWas,
            SidOwner::Another(tag) => Untagged::Another(tag),
            SidOwner::OtherHost(host) => Untagged::OtherHost(host),
            // A part of what is an address makes an address.
            SidOwner::Ours(base) => without(uri, sid, base).map_or(Untagged::AsItWas, Untagged::Ours),
        }
    }

    /// Tags the session id in the open packet with which `payload` begins (the body of the answer to a handshake over
    /// polling). Everything else stays as it is, to the byte. `None`: it does not begin with an open packet.
    pub fn tag_open_packet(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let packet = payload.split(|byte| *byte == SEPARATOR).next()?.strip_prefix(b"0")?;
        let open: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(packet).ok()?;
        let sid: &str = serde_json::from_str(open.get("sid")?.get()).ok()?;
        // A text that was borrowed from the payload is a part of it.
        let at = sid.as_ptr().addr().checked_sub(payload.as_ptr().addr())?;
        let (before, rest) = payload.split_at_checked(at)?;
        let after = rest.get(sid.len()..)?;
        Some([before, self.tagger.append(sid, self.own).as_bytes(), after].concat())
    }

    /// Whether this worker lingers, and what was on its way then has had its time: a session that begins
    /// now is to begin elsewhere.
    pub(super) fn refuses_sessions(&self) -> bool {
        self.drain.lingers().is_some_and(|linger| linger.since.elapsed() >= SETTLE)
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tags").field("own", &self.own).finish_non_exhaustive()
    }
}

/// A worker's environment variables for tags: `HAFT_TAG_KEY`, its slot and its generation.
pub(super) fn from_env(variable: impl Fn(&str) -> Option<String>) -> Option<(Tagger, Tag)> {
    let key = variable("HAFT_TAG_KEY")?;
    let Some(key) = TagKey::from_hex(&key) else {
        // It is a secret even if it is none.
        tracing::warn!(
            "HAFT_TAG_KEY is not a key (64 hexadecimal digits, or several with commas between): sessions are not tagged"
        );
        return None;
    };
    let slot = variable("HAFT_SLOT").and_then(|slot| slot.parse().ok());
    let generation = variable("HAFT_GENERATION").and_then(|generation| generation.parse().ok());
    let (Some(slot), Some(generation)) = (slot, generation) else {
        tracing::warn!("HAFT_SLOT or HAFT_GENERATION is not set to a number: sessions are not tagged");
        return None;
    };
    let host = variable("HAFT_HOST_ID").map(|host| host.parse::<HostId>());
    let host = host.transpose().unwrap_or_else(|error| {
        tracing::warn!("HAFT_HOST_ID is no host's name: {error}");
        None
    });
    Some((Tagger::new(&key).on(host.unwrap_or_default()), Tag { slot: Slot(slot), generation }))
}

/// The first session id of a query, escaped as it came; none if it is empty.
pub(super) fn sid(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("sid=")).filter(|sid| !sid.is_empty())
}

/// The address with `base` in place of `sid`, which is a part of its query.
fn without(uri: &Uri, sid: &str, base: &str) -> Option<Uri> {
    let text = uri.path_and_query()?.as_str();
    let at = sid.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let shorter = [text.get(..at)?, base, text.get(at + sid.len()..)?].concat();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(shorter).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::drain::DrainSource;
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) const OWN: Tag = Tag { slot: Slot(3), generation: 2 };
    pub(in super::super) const OTHER: Tag = Tag { slot: Slot(1), generation: 2 };

    pub(in super::super) fn tagger() -> Tagger {
        Tagger::new(&TagKey::of_text("a key for tests"))
    }

    /// Tags of a worker without a master.
    pub(in super::super) fn tags() -> Tags {
        Tags::new(tagger(), OWN, DrainSource::new().subscribe())
    }

    #[test]
    fn a_session_id_is_ours_another_s_or_nobody_s() {
        let (ours, others) = (tagger().append("abc", OWN), tagger().append("abc", OTHER));
        assert_eq!(tags().owner_of(&ours), SidOwner::Ours("abc"));
        assert_eq!(tags().owner_of(&others), SidOwner::Another(OTHER));
        let before = Tag { generation: 1, ..OWN };
        assert_eq!(
            tags().owner_of(&tagger().append("abc", before)),
            SidOwner::Another(before),
            "the one before a reload"
        );
        for sid in ["", "abc", &ours[..ours.len() - 1], &format!("{ours}x"), &ours.replacen('a', "b", 1)] {
            assert_eq!(tags().owner_of(sid), SidOwner::Untagged, "{sid}");
        }
    }

    #[test]
    fn only_the_tag_is_taken_out_of_an_address() {
        let (ours, others) = (tagger().append("a-_b", OWN), tagger().append("a-_b", OTHER));
        for (before, after) in [
            (
                "/socket.io/?EIO=4&transport=polling&t=x%2Fy&sid={}",
                "/socket.io/?EIO=4&transport=polling&t=x%2Fy&sid=a-_b",
            ),
            ("/s?sid={}&sid=z&%73id=1", "/s?sid=a-_b&sid=z&%73id=1"),
            ("http://h:1/s?a&&sid={}&", "http://h:1/s?a&&sid=a-_b&"),
        ] {
            let uri: Uri = before.replace("{}", &ours).parse().expect("address");
            assert_eq!(tags().untagged(&uri), Untagged::Ours(after.parse().expect("address")), "{before}");
            let uri: Uri = before.replace("{}", &others).parse().expect("address");
            assert_eq!(tags().untagged(&uri), Untagged::Another(OTHER), "{before}");
        }
        for other in ["/", "/?", "/?sid", "/?sid=", "/?sid=abc", "/?xsid={}", "/{}?a", "/?sid=abc&sid={}", "/?a=sid={}"]
        {
            let uri: Uri = other.replace("{}", &others).parse().expect("address");
            assert_eq!(tags().untagged(&uri), Untagged::AsItWas, "{other}");
        }
    }

    #[test]
    fn only_the_session_id_of_an_open_packet_changes() {
        let ours = tagger().append("abc", OWN);
        for open in [
            "0{\"sid\":\"{}\",\"upgrades\":[\"websocket\"],\"pingInterval\":25000}",
            "0{ \"upgrades\" : [\"abc\"], \"x\":{\"sid\":\"abc\"}, \"sid\" : \"{}\" }",
            "0{\"sid\":\"{}\"}\u{1e}40{\"sid\":\"abc\"}",
        ] {
            let tagged = tags().tag_open_packet(open.replace("{}", "abc").as_bytes());
            assert_eq!(tagged, Some(open.replace("{}", &ours).into_bytes()), "{open}");
        }
        let no_open =
            ["", "0", "2", "6", "0{}", "40{\"sid\":\"abc\"}", "0{\"sid\":7}", "2\u{1e}0{\"sid\":\"abc\"}", "0["];
        for other in no_open {
            assert_eq!(tags().tag_open_packet(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_no_open_packet_is_left_alone(bytes in prop::collection::vec(any::<u8>(), 0..80), sid in "[ -~]{0,9}") {
            tags().tag_open_packet(&bytes);
            let open = format!("0{}", serde_json::json!({ "sid": sid, "upgrades": [] }));
            if let Some(tagged) = tags().tag_open_packet(open.as_bytes()) {
                let open: serde_json::Value = serde_json::from_slice(&tagged[1..]).expect("json");
                prop_assert_eq!(tags().owner_of(open["sid"].as_str().expect("sid")), SidOwner::Ours(&sid));
            }
        }
    }

    #[test]
    fn the_environment_tells_the_key_and_who_one_is() {
        let key = "aae24849842d7082b66f57ce8270bd04da2c39ffb97df22803c270983032c4e5";
        let env = |key: Option<&str>, slot: &str, generation: &str| {
            let (key, slot, generation) = (key.map(str::to_owned), slot.to_owned(), generation.to_owned());
            from_env(move |name| match name {
                "HAFT_TAG_KEY" => key.clone(),
                "HAFT_SLOT" => Some(slot.clone()),
                "HAFT_GENERATION" => Some(generation.clone()),
                _ => None,
            })
        };
        let (tagger, own) = env(Some(key), "3", "2").expect("tags");
        let on_a = from_env(|name| match name {
            "HAFT_TAG_KEY" => Some(key.to_owned()),
            "HAFT_HOST_ID" => Some("0A".to_owned()),
            _ => Some("1".to_owned()),
        });
        assert!(on_a.expect("tags").0.append("x", OWN).starts_with("x10A"));
        assert_eq!((tagger.append("x", own), own), (self::tagger().append("x", OWN), OWN));
        for (key, slot, generation) in
            [(None, "3", "2"), (Some("ab"), "3", "2"), (Some(key), "65536", "2"), (Some(key), "3", "x")]
        {
            assert!(env(key, slot, generation).is_none());
        }
    }
}

//! Tags: a session id that names its worker by itself, so that no table has to say whose it is.
//!
//! A tagged session id is the engine's own id and 19 characters:
//!
//! ```text
//! lgy5fjW0yVKcPbBnAAAC 1 00 AAIAAAAHaaeY3mVb
//! │                    │ │  └ base64url of 12 bytes: slot (2), generation (4), checksum (6); numbers big-endian
//! │                    │ └ the host's name in plain text, so that any front can route by it: `00` where it has none
//! │                    └ the version of this layout
//! └ the engine's id
//! ```
//!
//! The checksum is the first 6 bytes of HMAC-SHA256 over all that stands before it: the engine's id, the version, the
//! host's name, and the 6 bytes of the numbers. A forged tag fails its checksum with a chance of all but 1 in 2^48, and
//! would gain what a client of a known address has anyway: the choice of its worker. All characters are those of
//! base64url, as in the engine's own ids, so that a session id is still a name that programs may use as a key.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{HostId, Slot};

/// Length of the checksum in bytes.
const CHECKSUM: usize = 6;
/// Length of a tag's bytes: slot, generation, checksum.
const TAG: usize = 2 + 4 + CHECKSUM;
/// Length of a tag's text: 12 bytes need no padding.
const TEXT: usize = TAG / 3 * 4;
/// What stands before that text: the version of the layout, and the host's name.
const HEAD: usize = 1 + 2;
const VERSION: u8 = b'1';

/// The worker that a session is with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The slot that the worker fills, or filled before a reload.
    pub slot: Slot,
    /// The worker's generation.
    pub generation: u32,
}

/// The secrets that tags are made with: the first one signs, all are accepted, so that one can be exchanged for another
/// while sessions with the old one live on.
#[derive(Clone, PartialEq, Eq)]
pub struct TagKey(Vec<[u8; 32]>);

/// Between two secrets as workers are given them.
const BETWEEN: char = ',';

impl TagKey {
    /// A key of its own bytes, which should be random.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(vec![bytes])
    }

    /// This one signs, and the other's are accepted, too.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The key that a text stands for: its SHA-256.
    pub fn of_text(text: &str) -> Self {
        Self::new(Sha256::digest(text).into())
    }

    /// A secret of its own for another purpose, made of the one that signs: its uses reveal nothing about tags.
    pub fn derived(&self, purpose: &str) -> [u8; 32] {
        let keyed = self.0.first().map(hmac).unwrap_or_else(|| hmac(&[0; 32]));
        keyed.chain_update(purpose).finalize().into_bytes().into()
    }

    /// Reads what [`TagKey::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        text.split(BETWEEN).map(secret_from_hex).collect::<Option<Vec<_>>>().map(Self)
    }

    /// 64 hexadecimal digits for each secret, with commas between them: the key as workers are given it.
    pub fn to_hex(&self) -> String {
        let digits = |secret: &[u8; 32]| secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.0.iter().map(digits).collect::<Vec<_>>().join(&BETWEEN.to_string())
    }
}

fn secret_from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let pairs = text.as_bytes().as_chunks::<2>();
    if pairs.0.len() != bytes.len() || !pairs.1.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs.0) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    Some(bytes)
}

impl fmt::Debug for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagKey(secret)")
    }
}

/// Writes and reads tags. Making one costs as much as a hundred tags do; so keep it.
#[derive(Clone)]
pub struct Tagger {
    /// HMAC with a secret taken in already; the first one signs.
    keyed: Vec<Hmac<Sha256>>,
    host: HostId,
}

/// What a session id is, to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading<'s> {
    /// It has no tag that was made with this key.
    Untagged,
    /// The engine's session id, and its worker on this host. A tag or a host without a name counts as of this host.
    Here(&'s [u8], Tag),
    /// It belongs to another host.
    Elsewhere(HostId),
}

impl Tagger {
    /// A writer and reader of tags made with `key`, on a host without a name.
    pub fn new(key: &TagKey) -> Self {
        Self { keyed: key.0.iter().map(hmac).collect(), host: HostId::NONE }
    }

    /// The same on this host, whose name its tags have.
    pub fn on(self, host: HostId) -> Self {
        Self { host, ..self }
    }

    /// The engine's session id with a tag.
    pub fn append(&self, base: &str, tag: Tag) -> String {
        let mut bytes = [0; TAG];
        bytes[..2].copy_from_slice(&tag.slot.0.to_be_bytes());
        bytes[2..6].copy_from_slice(&tag.generation.to_be_bytes());
        // A key has a secret.
        if let Some(keyed) = self.keyed.first() {
            let checksum = checksum(keyed, base.as_bytes(), self.host, &bytes[..6]).finalize().into_bytes();
            bytes[6..].copy_from_slice(&checksum[..CHECKSUM]);
        }
        let mut sid = String::with_capacity(base.len() + HEAD + TEXT);
        sid.push_str(base);
        sid.extend([VERSION].iter().chain(&self.host.bytes()).copied().map(char::from));
        URL_SAFE_NO_PAD.encode_string(bytes, &mut sid);
        sid
    }

    /// What `sid` is here.
    pub fn reading<'s>(&self, sid: &'s [u8]) -> Reading<'s> {
        let Some((base, host, bytes)) = taken_apart(sid) else { return Reading::Untagged };
        let (numbers, given) = bytes.split_at(TAG - CHECKSUM);
        let is_right = |keyed| checksum(keyed, base, host, numbers).verify_truncated_left(given).is_ok();
        match self.keyed.iter().any(is_right) {
            false => Reading::Untagged,
            true if self.host.is_other(host) => Reading::Elsewhere(host),
            true => Reading::Here(base, Tag::of(bytes)),
        }
    }

    /// The engine's session id and the tag, if `sid` has one that was made with this key and is not another host's.
    pub fn read<'s>(&self, sid: &'s [u8]) -> Option<(&'s [u8], Tag)> {
        match self.reading(sid) {
            Reading::Here(base, tag) => Some((base, tag)),
            Reading::Untagged | Reading::Elsewhere(_) => None,
        }
    }

    /// The engine's session id, and host and worker that stand in the place of a tag, if any can: its checksum may be
    /// wrong.
    pub fn claimed(sid: &[u8]) -> Option<(&[u8], HostId, Tag)> {
        taken_apart(sid).map(|(base, host, bytes)| (base, host, Tag::of(bytes)))
    }
}

impl Tag {
    fn of([s0, s1, g0, g1, g2, g3, ..]: [u8; TAG]) -> Self {
        Self { slot: Slot(u16::from_be_bytes([s0, s1])), generation: u32::from_be_bytes([g0, g1, g2, g3]) }
    }
}

/// The engine's session id, the host's name, and the bytes of the rest.
fn taken_apart(sid: &[u8]) -> Option<(&[u8], HostId, [u8; TAG])> {
    let (base, tag) = sid.split_at_checked(sid.len().checked_sub(HEAD + TEXT)?)?;
    let ([VERSION, host @ ..], text) = tag.split_first_chunk::<HEAD>()? else { return None };
    let mut bytes = [0; TAG];
    let is_whole = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) == Ok(TAG);
    Some((base, HostId::of_tag(*host)?, bytes)).filter(|_| is_whole)
}

fn hmac(secret: &[u8; 32]) -> Hmac<Sha256> {
    // RFC 2104: a key shorter than the hash's block is filled with zeros.
    let mut block = [0; 64];
    block[..32].copy_from_slice(secret);
    Hmac::new(&block.into())
}

fn checksum(keyed: &Hmac<Sha256>, base: &[u8], host: HostId, numbers: &[u8]) -> Hmac<Sha256> {
    keyed.clone().chain_update(base).chain_update([VERSION]).chain_update(host.bytes()).chain_update(numbers)
}

impl fmt::Debug for Tagger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tagger(secret)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tagger() -> Tagger {
        Tagger::new(&TagKey::of_text("a key for tests"))
    }

    const TAG_2_7: Tag = Tag { slot: Slot(2), generation: 7 };

    /// From an implementation of the same formulas in another language (Python's hmac).
    #[test]
    fn a_tag_is_the_same_in_every_process() {
        let key = TagKey::of_text("a key for tests");
        assert_eq!(key.to_hex(), "aae24849842d7082b66f57ce8270bd04da2c39ffb97df22803c270983032c4e5");
        assert_eq!(tagger().append("lgy5fjW0yVKcPbBnAAAC", TAG_2_7), "lgy5fjW0yVKcPbBnAAAC100AAIAAAAHaaeY3mVb");
    }

    #[test]
    fn a_key_is_read_as_it_is_written_and_never_shown() {
        let key = TagKey::of_text("x");
        assert_eq!(TagKey::from_hex(&key.to_hex()), Some(key.clone()));
        for wrong in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66)] {
            assert_eq!(TagKey::from_hex(wrong), None, "{wrong}");
        }
        let both = key.clone().and(TagKey::of_text("y"));
        assert_eq!(TagKey::from_hex(&both.to_hex()), Some(both));
        assert_eq!(format!("{key:?} {:?}", tagger()), "TagKey(secret) Tagger(secret)");
    }

    #[test]
    fn what_is_no_tag_of_ours_is_no_tag() {
        let ours = tagger().append("lgy5fjW0yVKcPbBnAAAC", TAG_2_7);
        assert_eq!(tagger().read(ours.as_bytes()), Some((&b"lgy5fjW0yVKcPbBnAAAC"[..], TAG_2_7)));
        assert_eq!(Tagger::new(&TagKey::of_text("another")).read(ours.as_bytes()), None);
        for sid in [
            "",
            ".",
            "lgy5fjW0yVKcPbBnAAAC",
            &ours[1..],
            &ours[..ours.len() - 1],
            &ours.replace("C100", "C200"),
            &ours.replace("C100", "C1A0"),
        ] {
            assert_eq!(tagger().read(sid.as_bytes()), None, "{sid}");
        }
    }

    /// From the implementation in another language, too.
    #[test]
    fn a_tag_names_its_host() {
        let [a, b] = ["A", "B"].map(|text| tagger().on(text.parse().expect(text)));
        let of_a = a.append("lgy5fjW0yVKcPbBnAAAC", TAG_2_7);
        assert_eq!(of_a, "lgy5fjW0yVKcPbBnAAAC10AAAIAAAAHs-hDooDw");
        let here = Reading::Here(&b"lgy5fjW0yVKcPbBnAAAC"[..], TAG_2_7);
        assert_eq!((a.reading(of_a.as_bytes()), tagger().reading(of_a.as_bytes())), (here, here));
        assert_eq!(b.reading(of_a.as_bytes()), Reading::Elsewhere("A".parse().expect("a name")));
        assert_eq!(b.read(of_a.as_bytes()), None);
        let of_none = tagger().append("lgy5fjW0yVKcPbBnAAAC", TAG_2_7);
        assert_eq!(a.reading(of_none.as_bytes()), here, "a host that had no name yet");
        let renamed = of_a.replace("C10A", "C10B");
        assert_eq!(
            (a.reading(renamed.as_bytes()), b.reading(renamed.as_bytes())),
            (Reading::Untagged, Reading::Untagged)
        );
        assert_eq!(
            Tagger::claimed(renamed.as_bytes()),
            Some((&b"lgy5fjW0yVKcPbBnAAAC"[..], "B".parse().expect("a name"), TAG_2_7))
        );
    }

    #[test]
    fn a_key_is_exchanged_without_ending_sessions() {
        let (old, new) = (TagKey::of_text("the old key"), TagKey::of_text("the new key"));
        let before = Tagger::new(&old).append("lgy5fjW0yVKcPbBnAAAC", TAG_2_7);
        let both = Tagger::new(&new.clone().and(old));
        let after = both.append("lgy5fjW0yVKcPbBnAAAC", TAG_2_7);
        assert_eq!(after, Tagger::new(&new).append("lgy5fjW0yVKcPbBnAAAC", TAG_2_7), "the first one signs");
        for sid in [before, after] {
            assert_eq!(both.read(sid.as_bytes()).map(|(_, tag)| tag), Some(TAG_2_7), "both are accepted");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(base in "[A-Za-z0-9_.~-]{0,40}", slot: u16, generation: u32) {
            let tag = Tag { slot: Slot(slot), generation };
            let sid = tagger().append(&base, tag);
            prop_assert_eq!(tagger().read(sid.as_bytes()), Some((base.as_bytes(), tag)));
        }

        #[test]
        fn any_change_makes_it_no_tag(at in 0..39_usize, flip in 1..=255_u8) {
            let mut sid = tagger().append("lgy5fjW0yVKcPbBnAAAC", TAG_2_7).into_bytes();
            sid[at] ^= flip;
            prop_assert_eq!(tagger().read(&sid), None);
        }

        #[test]
        fn nothing_that_comes_panics(sid in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(tagger().read(&sid), None);
        }
    }
}

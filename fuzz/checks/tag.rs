//! Any bytes, read as a session id that may have a tag.

use haft::route::{Slot, Tag, TagKey, Tagger};

/// The first six bytes are a slot and a generation, the seventh the length of an id; then the id, then changes to its tag:
/// a place and what is flipped there.
pub fn check(data: &[u8]) {
    // Each input has a key of its own: the fuzzer sees the tags that are made here, and would come with them.
    let tagger = Tagger::new(&TagKey::of_text(&format!("{data:?}")));
    // What nobody made with the key is no tag.
    assert_eq!(tagger.read(data), None);
    let Some(([s0, s1, g0, g1, g2, g3, length], rest)) = data.split_first_chunk() else { return };
    let tag = Tag { slot: Slot(u16::from_be_bytes([*s0, *s1])), generation: u32::from_be_bytes([*g0, *g1, *g2, *g3]) };
    let (id, changes) = rest.split_at(rest.len().min(usize::from(*length)));
    let base = String::from_utf8_lossy(id);
    let whole = tagger.append(&base, tag);
    assert_eq!(tagger.read(whole.as_bytes()), Some((base.as_bytes(), tag)));
    assert_eq!(Tagger::new(&TagKey::of_text("another")).read(whole.as_bytes()), None);

    let mut changed = whole.clone().into_bytes();
    for [at, flip] in changes.as_chunks().0 {
        let at = usize::from(*at) % changed.len();
        changed[at] ^= flip;
    }
    let same = changed == whole.as_bytes();
    assert_eq!(tagger.read(&changed).is_some(), same, "{} {}", whole, changed.escape_ascii());
    for cut in [&changed[1..], &changed[..changed.len() - 1], &[&changed[..], b"A"].concat()] {
        assert_eq!(tagger.read(cut), None);
    }
}

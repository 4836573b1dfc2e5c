//! A hash with a secret key, for values that clients choose.
//!
//! A client that chooses the value and knows the hash can find values that all lead to one slot. With a key that only
//! haft has the best that can be done is to try.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::TagKey;
use super::key::Key;

/// What the secret is used for here: no tag is ever signed with the key that comes of it, whatever the values are.
const PURPOSE: &str = "haft: keys of values";

/// Makes keys of values. Making one costs as much as a few values do; so keep it.
#[derive(Clone)]
pub struct ValueKeys(Hmac<Sha256>);

impl ValueKeys {
    /// Keys made with the secret that signs tags: the first one, if there are two.
    pub fn new(key: &TagKey) -> Self {
        // RFC 2104: a key shorter than the hash's block is filled with zeros.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&key.derived(PURPOSE));
        Self(Hmac::new(&block.into()))
    }

    /// What must stick of a client with this value: the first 8 bytes of its HMAC-SHA256. The same value is the same
    /// key wherever in the request it stands.
    pub fn key(&self, value: &[u8]) -> Key {
        let bytes = self.0.clone().chain_update(value).finalize().into_bytes();
        Key::of_hash(u64::from_be_bytes(std::array::from_fn(|index| bytes[index])))
    }
}

impl fmt::Debug for ValueKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ValueKeys(secret)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::route::Table;

    fn keys(text: &str) -> ValueKeys {
        ValueKeys::new(&TagKey::of_text(text))
    }

    const VALUES: [(&str, u64); 3] =
        [("", 0xc67f_97f3_bfa6_281b), ("room 1", 0x7290_d334_a027_23e0), ("user-7", 0xb8b2_e23a_157c_5678)];

    /// From an implementation of the same formulas in another language (Python's hmac).
    #[test]
    fn a_value_is_the_same_key_in_every_process() {
        let keys = keys("a key for tests");
        for (value, bits) in VALUES {
            assert_eq!(keys.key(value.as_bytes()).bits(), bits, "{value}");
        }
        let both = ValueKeys::new(&TagKey::of_text("a key for tests").and(TagKey::of_text("an older one")));
        assert_eq!(both.key(b"room 1"), keys.key(b"room 1"), "the key that signs is the one that hashes");
        assert_eq!(format!("{keys:?}"), "ValueKeys(secret)");
    }

    /// Values that all lead to one slot with one key are spread with another, so knowing them gains an attacker nothing
    /// elsewhere.
    #[test]
    fn values_that_were_found_for_one_key_are_spread_with_another() {
        const SLOTS: usize = 8;
        let (table, known, ours) = (Table::new(SLOTS).expect("slots"), keys("known"), keys("ours"));
        let aimed: Vec<String> = (0..)
            .map(|number| format!("room {number}"))
            .filter(|room| table.choose(known.key(room.as_bytes())).0 == 3)
            .take(400)
            .collect();
        let mut loads = [0; SLOTS];
        for room in &aimed {
            loads[table.choose(ours.key(room.as_bytes())).index()] += 1;
        }
        // 50 each, with a standard deviation of 6.6: past 5 of them is no chance.
        assert!(loads.iter().all(|load| (17..=83).contains(load)), "{loads:?}");
    }

    #[test]
    fn values_are_spread_evenly_and_a_new_slot_moves_only_its_share() {
        let keys = keys("a key for tests");
        let (eight, nine) = (Table::new(8).expect("slots"), Table::new(9).expect("slots"));
        let (mut loads, mut moved) = ([0; 8], 0);
        for user in 0..40_000 {
            let key = keys.key(format!("user-{user}").as_bytes());
            let (before, after) = (eight.choose(key), nine.choose(key));
            loads[before.index()] += 1;
            assert!(before == after || after.0 == 8, "moved between old slots");
            moved += usize::from(before != after);
        }
        assert!(loads.iter().all(|load| (4670..=5330).contains(load)), "{loads:?}");
        assert!((4130..=4760).contains(&moved), "{moved} of 40,000 moved");
    }

    proptest! {
        #[test]
        fn different_values_are_different_keys(values in prop::collection::hash_set(prop::collection::vec(any::<u8>(), 0..99), 2..20)) {
            let keys = keys("a key for tests");
            let distinct: HashSet<_> = values.iter().map(|value| keys.key(value)).collect();
            prop_assert_eq!(distinct.len(), values.len());
        }
    }
}

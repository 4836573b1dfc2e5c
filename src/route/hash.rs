//! The hash under keys and slots, and the only place that uses `fxhash`.

use std::hash::Hasher;

use fxhash::FxHasher64;

/// What FxHash does with a word, for code that cannot call it: `hash = (hash.rotate_left(FX_ROTATION) ^ word) *
/// FX_FACTOR`, from 0 (fxhash 0.2, `add_to_hash`).
pub(super) const FX_ROTATION: u32 = 5;
pub(super) const FX_FACTOR: u64 = 0x517c_c1b7_2722_0a95;

/// The factors of [`finish`], and how far it shifts.
pub(super) const FINISH_FACTORS: [u64; 2] = [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53];
pub(super) const FINISH_SHIFT: u32 = 33;

/// Adds `word` to `state`: the FxHash of the two, finished. For one `state`, different words give different results.
///
/// A longer input is absorbed word by word. Each word is finished before the next one comes, since in bare FxHash two
/// words can cancel out: a change of bit 63 in one word is undone by a change of bit 4 in the next.
#[inline]
pub(super) fn absorb(state: u64, word: u64) -> u64 {
    let mut fx = FxHasher64::default();
    fx.write_u64(state);
    fx.write_u64(word);
    finish(fx.finish())
}

/// Makes every bit of the result depend on every bit of `hash`; different inputs give different results.
///
/// FxHash ends with a multiplication and has no finaliser: its low bits depend on the low bits of the input only (a
/// stride of 256 leaves the low 8 bits constant). This is the 64-bit finaliser of MurmurHash3, `fmix64`, by Austin
/// Appleby, public domain: <https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp>.
#[inline]
pub(super) fn finish(mut hash: u64) -> u64 {
    hash ^= hash >> FINISH_SHIFT;
    hash = hash.wrapping_mul(FINISH_FACTORS[0]);
    hash ^= hash >> FINISH_SHIFT;
    hash = hash.wrapping_mul(FINISH_FACTORS[1]);
    hash ^ (hash >> FINISH_SHIFT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_stride_that_bare_fxhash_maps_to_one_slot_is_spread() {
        let strided = || (0..10_000_u64).map(|i| i * 256);
        let slots = |hash: fn(u64) -> u64| strided().map(|word| hash(word) % 256).collect::<BTreeSet<_>>().len();
        assert_eq!(slots(|word| fxhash::hash64(&word)), 1, "what this module guards against");
        assert_eq!(slots(|word| absorb(0, word)), 256);
    }

    #[test]
    fn words_that_cancel_out_in_bare_fxhash_do_not_here() {
        let (one, other) = ((0, 0), (1 << 63, 1 << 4));
        assert_eq!(fxhash::hash64(&one), fxhash::hash64(&other), "what this module guards against");
        let both = |(first, second)| absorb(absorb(0, first), second);
        assert_ne!(both(one), both(other));
    }

    #[test]
    fn fxhash_is_what_its_constants_say() {
        let by_hand = |state: u64, word: u64| {
            let first = state.wrapping_mul(FX_FACTOR);
            finish((first.rotate_left(FX_ROTATION) ^ word).wrapping_mul(FX_FACTOR))
        };
        for (state, word) in [(0, 0), (4, 0x7f00_0001), (u64::MAX, 1 << 63), (0x0123_4567_89ab_cdef, 42)] {
            assert_eq!(by_hand(state, word), absorb(state, word));
        }
    }

    /// Strict avalanche: one changed input bit changes each output bit half of the time. Over 4096 inputs the share has
    /// a standard deviation of 0.78 %; 5.5 of them, over 64 * 64 pairs of bits, is passed by chance once in 6000 runs
    /// of a perfect hash, and this run is always the same one.
    #[test]
    fn every_input_bit_changes_every_output_bit_half_of_the_time() {
        const INPUTS: u64 = 4096;
        for bit in 0..64 {
            let mut changed = [0_u32; 64];
            for word in 0..INPUTS {
                let difference = absorb(1, word) ^ absorb(1, word ^ (1 << bit));
                for (position, count) in changed.iter_mut().enumerate() {
                    *count += u32::from(difference >> position & 1 == 1);
                }
            }
            for (position, count) in changed.into_iter().enumerate() {
                let share = f64::from(count) / INPUTS as f64;
                assert!((share - 0.5).abs() < 0.043, "input bit {bit} changes output bit {position} with {share}");
            }
        }
    }
}

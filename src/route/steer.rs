//! The choice of a slot as a program for the kernel (`--dispatch kernel`), and the model that predicts its choice.
//!
//! A group of listeners with SO_REUSEPORT asks a program in classic BPF which of them gets a new client
//! (socket(7), SO_ATTACH_REUSEPORT_CBPF). That machine has 32-bit arithmetic, no loop, 16 words of memory and at most
//! 4096 instructions (`BPF_MAXINSNS` in the kernel's linux/bpf_common.h), so the 64-bit hashes of this folder are done
//! by halves and once more for each slot:
//!
//! * Up to [`MAX_RENDEZVOUS`] slots the program chooses **the very slot that hand-over chooses** ([`Table::choose`]):
//!   the same key, the same scores, the same winner.
//! * Beyond that there is no room for a score for each slot. The program takes the low half of the key modulo the
//!   number of slots, which spreads clients as evenly, but with another number of slots nearly every client moves.
//!
//! A bypassed slot is skipped: its clients, and no others, go to other slots.
//!
//! The program looks at the source address alone. An IPv4 client of a dual-stack listener comes as an IPv4 packet, so
//! the packet's own version decides what to read. An IPv6 packet from an IPv4-mapped address never gets so far: the
//! kernel drops it (`ip6_rcv_core`).

mod machine;
mod probes;

use std::net::IpAddr;
use std::ops::Range;

use self::machine::Cell::{
    self, BestHigh, BestLow, BestSlot, High, HighDigit, KeyHigh, KeyLow, Low, Product, Score, Swap,
};
pub use self::machine::Instruction;
use self::machine::{Code, Jump, Op};
pub use self::probes::{MARKS_IPV4, MARKS_IPV6};
use super::hash::{FINISH_FACTORS, FINISH_SHIFT, FX_FACTOR, FX_ROTATION};
use super::key::{IPV4, IPV6, Key};
use super::table::{SlotCountError, Table};
use super::{Prefix, Slot};

/// Up to so many slots the kernel chooses as hand-over does.
pub const MAX_RENDEZVOUS: usize = 32;

/// The source address in an IPv4 header (RFC 791) and in an IPv6 header (RFC 8200), from the header's first byte.
const IPV4_SOURCE: u32 = 12;
const IPV6_SOURCE: u32 = 8;
/// The version of a packet is in the upper half of its first byte.
const VERSION: u32 = 0xf0;
const VERSION_6: u32 = 0x60;

/// Which slot the kernel chooses for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steering {
    table: Table,
    prefix: Prefix,
    /// Those that are steered to, in their order; never empty.
    open: Vec<Slot>,
}

impl Steering {
    /// Spreads clients over the slots 0 to `slots` - 1 by the first `prefix` bits of their address.
    ///
    /// # Errors
    /// When there cannot be so many slots.
    pub fn new(slots: usize, prefix: Prefix) -> Result<Self, SlotCountError> {
        Ok(Self::among(Table::new(slots)?, prefix, |_| false))
    }

    /// As [`Steering::new`], past those slots of the table that are bypassed; as if none were, if all are.
    pub fn among(table: Table, prefix: Prefix, is_bypassed: impl Fn(Slot) -> bool) -> Self {
        let mut open: Vec<Slot> = table.slots().filter(|slot| !is_bypassed(*slot)).collect();
        if open.is_empty() {
            open.extend(table.slots());
        }
        Self { table, prefix, open }
    }

    /// The slot of the client with this address, as the kernel chooses it.
    ///
    /// ```
    /// use haft::route::{Key, Prefix, Steering, Table};
    ///
    /// let (ip, prefix) = ("192.0.2.7".parse()?, Prefix { ipv4: 32, ipv6: 64 });
    /// let steered = Steering::new(4, prefix)?.slot_of(ip);
    /// assert_eq!(steered, Table::new(4)?.choose(Key::of_ip(ip, prefix)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn slot_of(&self, ip: IpAddr) -> Slot {
        self.slot_of_key(Key::of_ip(ip, self.prefix))
    }

    fn slot_of_key(&self, key: Key) -> Slot {
        let is_open = |slot: &Slot| self.is_open(*slot);
        match self.table.count() {
            ..=MAX_RENDEZVOUS => self.table.order(key).find(is_open).unwrap_or(self.open[0]),
            slots => {
                // Less than the number of slots, which fits.
                let own = Slot((low(key.bits()) % slots as u32) as u16);
                let other = || self.open[high(key.bits()) as usize % self.open.len()];
                if is_open(&own) { own } else { other() }
            }
        }
    }

    /// Whether the slot's clients are steered to it.
    pub fn is_open(&self, slot: Slot) -> bool {
        self.open.binary_search(&slot).is_ok()
    }

    /// How many slots there are, at least 1.
    pub fn slots(&self) -> usize {
        self.table.count()
    }

    /// The program: it returns the number of the slot.
    pub fn program(&self) -> Vec<Instruction> {
        self.program_to(0, &[], false)
    }

    /// The program where the slots' listeners stand elsewhere in their group: it returns the number of the slot and
    /// `behind`, but for the slots that `elsewhere` names, each with its place. If `probed`, a packet that has just one
    /// more hop to live goes to the place that it names itself: [`MARKS_IPV4`] and [`MARKS_IPV6`] say how.
    pub fn program_to(&self, behind: u32, elsewhere: &[(Slot, u32)], probed: bool) -> Vec<Instruction> {
        let mut code = Code::new();
        if probed {
            probes::go_where_they_say(&mut code);
        }
        if let [only] = self.open[..] {
            let place = elsewhere.iter().find(|(slot, _)| *slot == only).map(|(_, place)| *place);
            code.return_number(place.unwrap_or(u32::from(only.0) + behind));
            return code.finished();
        }
        code.load_byte(0);
        code.with(Op::And, VERSION);
        let ipv6 = code.jump_if_equal(VERSION_6);
        self.ipv4_key(&mut code);
        let choose = code.jump();
        code.land(ipv6);
        self.ipv6_key(&mut code);
        code.land(choose);
        match self.table.count() {
            ..=MAX_RENDEZVOUS => rendezvous(&mut code, &self.open, self.table.seeds()),
            _ => self.modulo(&mut code),
        }
        for (slot, place) in elsewhere {
            code.return_if_equal(slot.0.into(), *place);
        }
        if behind > 0 {
            code.with(Op::Add, behind);
        }
        code.return_accumulator();
        code.finished()
    }

    /// Chooses by the key modulo the number of slots, and if that is bypassed among those that are not.
    fn modulo(&self, code: &mut Code) {
        let bypassed = self.bypassed();
        code.load(KeyLow);
        code.with(Op::Mod, self.table.count() as u32);
        if bypassed.is_empty() {
            return;
        }
        let found: Vec<Jump> = bypassed.iter().map(|run| code.jump_if_in(run.clone())).collect();
        let is_open = code.jump();
        found.into_iter().for_each(|jump| code.land(jump));
        // The place among those that are open, and then that among all.
        code.load(KeyHigh);
        code.with(Op::Mod, self.open.len() as u32);
        bypassed.iter().for_each(|run| code.add_if_at_least(run.start, run.end - run.start));
        code.land(is_open);
    }

    /// The runs of slots that are not open.
    fn bypassed(&self) -> Vec<Range<u32>> {
        let ends = self.open.iter().map(|slot| u32::from(slot.0)).chain([self.table.count() as u32]);
        let mut next = 0;
        ends.filter_map(|open| {
            let run = next..open;
            next = open + 1;
            (!run.is_empty()).then_some(run)
        })
        .collect()
    }

    /// Computes `Key::of_ipv4`.
    fn ipv4_key(&self, code: &mut Code) {
        let host = u32::BITS.saturating_sub(self.prefix.ipv4.into());
        if host == u32::BITS {
            return key_of_anyone(code);
        }
        let state = fx(0, IPV4).rotate_left(FX_ROTATION);
        code.load_word(IPV4_SOURCE);
        if host > 0 {
            code.with(Op::ShiftRight, host);
        }
        code.with(Op::Xor, low(state));
        code.store(Low);
        code.number(high(state));
        code.store(High);
        fx_product(code);
        finish_key(code);
    }

    /// Computes `Key::of_ipv6`.
    fn ipv6_key(&self, code: &mut Code) {
        let host = u128::BITS.saturating_sub(self.prefix.ipv6.into());
        let Some(mask) = u128::MAX.checked_shl(host) else {
            return key_of_anyone(code);
        };
        let word = |code: &mut Code, number: u32| match (mask >> (96 - 32 * number)) as u32 {
            0 => code.number(0),
            u32::MAX => code.load_word(IPV6_SOURCE + 4 * number),
            kept => {
                code.load_word(IPV6_SOURCE + 4 * number);
                code.with(Op::And, kept);
            }
        };
        let state = fx(0, IPV6).rotate_left(FX_ROTATION);
        word(code, 0);
        code.with(Op::Xor, high(state));
        code.store(High);
        word(code, 1);
        code.with(Op::Xor, low(state));
        code.store(Low);
        fx_product(code);
        finish_key(code);
        // What came of the first half of the address is the state before the second.
        for (from, to) in [(KeyHigh, High), (KeyLow, Low)] {
            code.load(from);
            code.store(to);
        }
        fx_product(code);
        code.store(High);
        rotated_word(code, High, Low);
        word(code, 2);
        code.with_index(Op::Xor);
        code.store(Swap);
        rotated_word(code, Low, High);
        word(code, 3);
        code.with_index(Op::Xor);
        code.store(Low);
        code.load(Swap);
        code.store(High);
        fx_product(code);
        finish_key(code);
    }
}

/// Stores [`Key::ANYONE`].
fn key_of_anyone(code: &mut Code) {
    for (cell, half) in [(KeyHigh, high(Key::ANYONE.bits())), (KeyLow, low(Key::ANYONE.bits()))] {
        code.number(half);
        code.store(cell);
    }
}

/// The upper word of `over:under` when that is rotated to the left as FxHash does: into the index register.
fn rotated_word(code: &mut Code, over: Cell, under: Cell) {
    code.load(under);
    code.with(Op::ShiftRight, u32::BITS - FX_ROTATION);
    code.copy_to_index();
    code.load(over);
    code.with(Op::ShiftLeft, FX_ROTATION);
    code.with_index(Op::Or);
    code.copy_to_index();
}

/// `High:Low` times FxHash's factor: the upper word stays in the accumulator, the lower one comes to `Low`.
fn fx_product(code: &mut Code) {
    high_of_product(code, FX_FACTOR);
    code.copy_to_index();
    code.load(Low);
    code.with(Op::Multiply, low(FX_FACTOR));
    code.store(Low);
    code.copy_from_index();
}

/// Finishes accumulator`:Low`, and stores it as the key.
fn finish_key(code: &mut Code) {
    finish(code);
    code.store(KeyHigh);
    fold(code, Some(FINISH_FACTORS[1]), KeyLow);
}

/// Scores each of the slots for the key, and leaves the best one in the accumulator: the first of those with the
/// highest score.
fn rendezvous(code: &mut Code, slots: &[Slot], seeds: &[u64]) {
    for (at, slot) in slots.iter().enumerate() {
        let (slot, seed) = (u32::from(slot.0), &seeds[slot.index()]);
        code.load(KeyLow);
        code.with(Op::Xor, low(*seed));
        code.store(Low);
        code.load(KeyHigh);
        code.with(Op::Xor, high(*seed));
        finish(code);
        if at == 0 {
            code.store(BestHigh);
            keep(code, slot);
            continue;
        }
        code.load_index(BestHigh);
        let better = code.jump_if_over_index();
        let worse = code.jump_unless_index();
        // As good so far: the lower halves decide, which have not been computed until now.
        fold_index(code);
        lower_half(code, BestLow);
        code.store(Score);
        lower_half(code, Low);
        code.load_index(Score);
        let better_after_all = code.jump_if_over_index();
        let as_good = code.jump();
        code.land(better);
        code.store(BestHigh);
        code.land(better_after_all);
        keep(code, slot);
        code.land(worse);
        code.land(as_good);
    }
    code.load(BestSlot);
}

/// This slot is the best so far.
fn keep(code: &mut Code, slot: u32) {
    code.load(Low);
    code.store(BestLow);
    code.number(slot);
    code.store(BestSlot);
}

/// The lower half of a score of which `low` holds what was multiplied last, and the index register what is folded in.
fn lower_half(code: &mut Code, low_cell: Cell) {
    code.load(low_cell);
    code.with(Op::Multiply, low(FINISH_FACTORS[1]));
    code.with_index(Op::Xor);
}

/// `hash::finish` of accumulator`:Low`, but for the last product's lower word and what is folded into that: the upper
/// word, which the last step leaves alone, stays in the accumulator, and `Low` holds what the lower one is made of.
fn finish(code: &mut Code) {
    let [first, second] = FINISH_FACTORS;
    code.store(High);
    fold(code, None, Low);
    high_of_product(code, first);
    code.store(High);
    fold(code, Some(first), Low);
    high_of_product(code, second);
}

/// The lower word of `hash ^ (hash >> FINISH_SHIFT)`, whose upper word is the accumulator and stays what it is. The
/// lower word of `hash` is that of `Low`, times `factor` if there is one.
fn fold(code: &mut Code, factor: Option<u64>, into: Cell) {
    fold_index(code);
    code.load(Low);
    if let Some(factor) = factor {
        code.with(Op::Multiply, low(factor));
    }
    code.with_index(Op::Xor);
    code.store(into);
}

/// What of the upper word, the accumulator, comes to the lower one by the shift: into the index register.
fn fold_index(code: &mut Code) {
    code.with(Op::ShiftRight, FINISH_SHIFT - u32::BITS);
    code.copy_to_index();
}

/// The upper word of `High:Low` times `factor`, modulo 2^64, by digits of 16 bits: what of the digits' products comes
/// to the upper word never leaves 32 bits on the way, since (2^16 - 1)^2 + (2^16 - 1) does not.
fn high_of_product(code: &mut Code, factor: u64) {
    const DIGIT: u32 = 0xffff;
    let (low_digit, high_digit) = (low(factor) & DIGIT, low(factor) >> 16);
    code.load(Low);
    code.with(Op::And, DIGIT);
    code.copy_to_index();
    code.with(Op::Multiply, low_digit);
    code.with(Op::ShiftRight, 16);
    code.store(Product);
    code.copy_from_index();
    code.with(Op::Multiply, high_digit);
    code.load_index(Product);
    code.with_index(Op::Add);
    code.store(Product);
    code.with(Op::And, DIGIT);
    code.copy_to_index();
    code.load(Low);
    code.with(Op::ShiftRight, 16);
    code.store(HighDigit);
    code.with(Op::Multiply, low_digit);
    code.with_index(Op::Add);
    code.with(Op::ShiftRight, 16);
    code.copy_to_index();
    code.load(Product);
    code.with(Op::ShiftRight, 16);
    code.with_index(Op::Add);
    // The products of whole words add to that.
    for (cell, factor) in [(HighDigit, high_digit), (Low, high(factor)), (High, low(factor))] {
        code.copy_to_index();
        code.load(cell);
        code.with(Op::Multiply, factor);
        code.with_index(Op::Add);
    }
}

/// One step of FxHash.
fn fx(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(FX_ROTATION) ^ word).wrapping_mul(FX_FACTOR)
}

fn low(number: u64) -> u32 {
    number as u32
}

fn high(number: u64) -> u32 {
    (number >> 32) as u32
}

#[cfg(test)]
mod tests;

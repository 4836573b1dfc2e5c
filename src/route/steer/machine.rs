//! The kernel's machine for classic BPF: its instructions, and putting a program together.
//!
//! It has an accumulator, an index register and 16 words of memory (the kernel's Documentation/networking/filter.rst).
//! The codes are those of `linux/bpf_common.h` and `linux/filter.h`, which no kernel will ever change.

use std::ops::Range;

/// An instruction as the kernel takes it (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip if a condition holds.
    pub jt: u8,
    /// How many to skip if it does not.
    pub jf: u8,
    /// A number, the place of a byte in the packet, or of a word in memory.
    pub k: u32,
}

// Classes, sizes, modes and sources of operands; they add up.
pub(super) const LD: u16 = 0x00;
pub(super) const LDX: u16 = 0x01;
pub(super) const ST: u16 = 0x02;
pub(super) const ALU: u16 = 0x04;
pub(super) const JMP: u16 = 0x05;
pub(super) const RET: u16 = 0x06;
pub(super) const MISC: u16 = 0x07;
pub(super) const W: u16 = 0x00;
pub(super) const B: u16 = 0x10;
pub(super) const IMM: u16 = 0x00;
pub(super) const ABS: u16 = 0x20;
pub(super) const MEM: u16 = 0x60;
pub(super) const K: u16 = 0x00;
pub(super) const X: u16 = 0x08;
pub(super) const A: u16 = 0x10;
pub(super) const JA: u16 = 0x00;
pub(super) const JEQ: u16 = 0x10;
pub(super) const JGT: u16 = 0x20;
pub(super) const JGE: u16 = 0x30;
pub(super) const TAX: u16 = 0x00;
pub(super) const TXA: u16 = 0x80;

/// Where the network header begins, as a place in the packet (`SKF_NET_OFF`).
pub(super) const NETWORK_HEADER: u32 = 0xfff0_0000;

/// What is done with the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Op {
    Add = 0x00,
    Multiply = 0x20,
    Or = 0x40,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Mod = 0x90,
    Xor = 0xa0,
}

/// The words of memory, by what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Cell {
    KeyHigh,
    KeyLow,
    /// The number that is worked on, its upper half.
    High,
    /// Its lower half.
    Low,
    Product,
    HighDigit,
    Swap,
    Score,
    BestHigh,
    BestLow,
    BestSlot,
}

/// A jump whose target is not known yet.
#[derive(Debug)]
#[must_use = "a jump must land"]
pub(super) struct Jump {
    at: usize,
    kind: JumpKind,
}

#[derive(Debug)]
enum JumpKind {
    Always,
    IfTrue,
    IfFalse,
}

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Code(Vec<Instruction>);

impl Code {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn finished(self) -> Vec<Instruction> {
        self.0
    }

    fn add(&mut self, code: u16, k: u32) -> usize {
        self.0.push(Instruction { code, jt: 0, jf: 0, k });
        self.0.len() - 1
    }

    /// Loads a byte of the network header.
    pub(super) fn load_byte(&mut self, place: u32) {
        self.add(LD | B | ABS, NETWORK_HEADER + place);
    }

    /// Loads four bytes of the network header, the first one being the highest.
    pub(super) fn load_word(&mut self, place: u32) {
        self.add(LD | W | ABS, NETWORK_HEADER + place);
    }

    pub(super) fn number(&mut self, number: u32) {
        self.add(LD | W | IMM, number);
    }

    pub(super) fn load(&mut self, cell: Cell) {
        self.add(LD | W | MEM, cell as u32);
    }

    pub(super) fn load_index(&mut self, cell: Cell) {
        self.add(LDX | W | MEM, cell as u32);
    }

    pub(super) fn store(&mut self, cell: Cell) {
        self.add(ST, cell as u32);
    }

    pub(super) fn copy_to_index(&mut self) {
        self.add(MISC | TAX, 0);
    }

    pub(super) fn copy_from_index(&mut self) {
        self.add(MISC | TXA, 0);
    }

    /// Accumulator and number.
    pub(super) fn with(&mut self, op: Op, number: u32) {
        self.add(ALU | op as u16 | K, number);
    }

    /// Accumulator and index register.
    pub(super) fn with_index(&mut self, op: Op) {
        self.add(ALU | op as u16 | X, 0);
    }

    pub(super) fn return_number(&mut self, number: u32) {
        self.add(RET | K, number);
    }

    pub(super) fn return_accumulator(&mut self) {
        self.add(RET | A, 0);
    }

    pub(super) fn jump(&mut self) -> Jump {
        Jump { at: self.add(JMP | JA, 0), kind: JumpKind::Always }
    }

    /// Jumps, as far as it may be, if the accumulator is this number.
    pub(super) fn jump_if_equal(&mut self, number: u32) -> Jump {
        let at = self.add(JMP | JEQ | K, number);
        self.0[at].jf = 1;
        self.jump()
    }

    /// Returns `result` if the accumulator is this number.
    pub(super) fn return_if_equal(&mut self, number: u32, result: u32) {
        let at = self.add(JMP | JEQ | K, number);
        self.0[at].jf = 1;
        self.return_number(result);
    }

    /// Jumps, as far as it may be, if the accumulator is one of these numbers, of which there is one at least.
    pub(super) fn jump_if_in(&mut self, numbers: Range<u32>) -> Jump {
        let at = self.add(JMP | JGE | K, numbers.start);
        self.0[at].jf = 2;
        let at = self.add(JMP | JGT | K, numbers.end - 1);
        self.0[at].jt = 1;
        self.jump()
    }

    /// Adds a number to the accumulator if that is `least` at least.
    pub(super) fn add_if_at_least(&mut self, least: u32, number: u32) {
        let at = self.add(JMP | JGE | K, least);
        self.0[at].jf = 1;
        self.with(Op::Add, number);
    }

    /// Jumps if the accumulator is over the index register; by at most 255 instructions.
    pub(super) fn jump_if_over_index(&mut self) -> Jump {
        Jump { at: self.add(JMP | JGT | X, 0), kind: JumpKind::IfTrue }
    }

    /// Jumps unless the accumulator is the index register; by at most 255 instructions.
    pub(super) fn jump_unless_index(&mut self) -> Jump {
        Jump { at: self.add(JMP | JEQ | X, 0), kind: JumpKind::IfFalse }
    }

    /// What comes next is where the jump goes.
    pub(super) fn land(&mut self, jump: Jump) {
        let distance = self.0.len() - jump.at - 1;
        let instruction = &mut self.0[jump.at];
        let short = || u8::try_from(distance).unwrap_or_else(|_| unreachable!("a jump over {distance} instructions"));
        match jump.kind {
            JumpKind::Always => instruction.k = distance as u32,
            JumpKind::IfTrue => instruction.jt = short(),
            JumpKind::IfFalse => instruction.jf = short(),
        }
    }
}

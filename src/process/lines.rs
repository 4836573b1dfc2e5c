//! The last lines that the workers of each slot wrote, kept for callers that ask.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::route::Slot;

/// Bytes that are kept of one slot, and what each line costs beside its text.
const MAX_BYTES: usize = 16 * 1024;
const COST_OF_LINE: usize = 64;
/// Bytes that are kept of one line.
const MAX_LINE: usize = 1024;

/// A line that a worker wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counted over all slots from 1, in the order in which haft read them.
    pub number: u64,
    /// When haft read it, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Whose worker it was.
    pub slot: Slot,
    /// Without its end.
    pub text: String,
}

/// The last lines of all slots.
#[derive(Debug, Default)]
pub struct Lines {
    slots: BTreeMap<Slot, Ring>,
    last: u64,
}

/// Writers and readers of lines share them.
pub type SharedLines = Rc<RefCell<Lines>>;

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
}

impl Lines {
    /// Notes what a worker wrote, in however many pieces a line comes. `begun`: the begin of a line whose end has not come
    /// by the same way.
    pub fn note(&mut self, slot: Slot, begun: &mut Vec<u8>, bytes: &[u8], unix_ms: u64) {
        let ring = self.slots.entry(slot).or_default();
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let room = MAX_LINE.saturating_sub(begun.len());
            begun.extend_from_slice(&piece[..piece.len().min(room)]);
            if pieces.peek().is_some() {
                let text = String::from_utf8_lossy(&std::mem::take(begun)).trim_end().to_owned();
                self.last += 1;
                ring.push(Line { number: self.last, unix_ms, slot, text });
            }
        }
    }

    /// The lines with a higher number, of one slot or of all, at most the last `most`, in the order of their numbers.
    pub fn after(&self, number: u64, slot: Option<Slot>, most: usize) -> Vec<Line> {
        let rings = self.slots.iter().filter(|(of, _)| slot.is_none_or(|slot| slot == **of));
        let newer = |(_, ring): (&Slot, &Ring)| {
            ring.lines.iter().rev().take_while(|line| line.number > number).take(most).cloned().collect::<Vec<_>>()
        };
        let mut lines: Vec<Line> = rings.flat_map(newer).collect();
        lines.sort_unstable_by_key(|line| line.number);
        lines.split_off(lines.len().saturating_sub(most))
    }
}

impl Ring {
    fn push(&mut self, line: Line) {
        self.bytes += line.text.len() + COST_OF_LINE;
        self.lines.push_back(line);
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.text.len() + COST_OF_LINE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_come_in_the_order_they_were_written_whatever_pieces_they_come_in() {
        let (mut lines, mut one, mut other) = (Lines::default(), Vec::new(), Vec::new());
        lines.note(Slot(0), &mut one, b"one\ntw", 1);
        lines.note(Slot(1), &mut other, b"other\r\n", 2);
        lines.note(Slot(0), &mut one, b"o\n\nthree", 3);
        assert_eq!(texts(&lines.after(0, None, 99)), ["one", "other", "two", ""]);
        assert_eq!(texts(&lines.after(0, Some(Slot(0)), 2)), ["two", ""]);
        assert_eq!(texts(&lines.after(2, None, 99)), ["two", ""]);
        assert_eq!(lines.after(4, None, 99), []);
        lines.note(Slot(0), &mut one, b"\xff\n", 4);
        let last = lines.after(4, None, 99).pop().expect("a line");
        assert_eq!((last.text.as_str(), last.number, last.unix_ms), ("three\u{fffd}", 5, 4));
    }

    #[test]
    fn what_is_kept_is_bounded_slot_by_slot() {
        let (mut lines, mut begun) = (Lines::default(), Vec::new());
        lines.note(Slot(1), &mut begun, b"kept\n", 0);
        lines.note(Slot(0), &mut begun, &[&b"x".repeat(100_000)[..], b"\n"].concat(), 0);
        (0..10_000).for_each(|number| lines.note(Slot(0), &mut begun, format!("line {number}\n").as_bytes(), 0));
        let kept = lines.after(0, Some(Slot(0)), usize::MAX);
        let bytes: usize = kept.iter().map(|line| line.text.len() + COST_OF_LINE).sum();
        assert!(bytes <= MAX_BYTES && bytes > MAX_BYTES - 2 * COST_OF_LINE, "{bytes}");
        assert_eq!(kept.last().expect("a line").text, "line 9999");
        assert_eq!(texts(&lines.after(0, Some(Slot(1)), 9)), ["kept"], "another slot's flood costs it nothing");
        lines.note(Slot(2), &mut begun, &b"y".repeat(1 << 20), 0);
        assert!(begun.len() <= MAX_LINE);
    }
}

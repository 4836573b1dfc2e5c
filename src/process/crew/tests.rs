//! What is kept of the outputs of failed starts.

use super::*;

/// Slots that fail again and again while the first worker still starts.
#[test]
fn outputs_that_wait_to_be_shown_are_each_kept_once_and_bounded() {
    let (mut crew, _exits) = Processes::new(OutputStyle { is_marked: false, has_stdout: false }, 1024, None, None);
    crew.speaker = Some(WorkerId(0));
    let mut fail = |number: usize, text: String| {
        let (worker, output) = (WorkerId(number as u64 + 1), Output::held());
        output.borrow_mut().write(text.as_bytes());
        let is_there = Rc::new(Cell::new(true));
        let member = WorkerProcess {
            pid: 0,
            slot: Slot(0),
            by_signal: false,
            output,
            asked: false,
            is_there,
            sight: Sight::new(0),
        };
        crew.members.insert(worker, member);
        crew.ended(worker, false);
        crew.pending.len()
    };
    (0..100).for_each(|number| assert_eq!(fail(number, format!("Error at {number}\n")), 1));
    // Other letters: numbers make no other failure.
    let other = |number: usize| "x".repeat(number + 1) + "\n";
    let waiting = (0..3 * MAX_SHOWN).map(|number| fail(number, other(number))).max();
    assert_eq!(waiting, Some(MAX_SHOWN));
}

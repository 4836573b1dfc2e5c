//! What waits for a slot, and the room it takes.
//!
//! A queue is nearly always empty or short, so the room for a few is kept and nothing is allocated for them. When
//! hundreds have come at once, or a worker stood still, it grows; that room is freed as soon as the queue is empty, so
//! that one burst does not raise the master's memory permanently. The price is a few allocations for each hundred and
//! more that waited together, never one for each connection.

use std::collections::VecDeque;

/// Most connections for which a queue keeps room when it is empty.
const KEPT: usize = 64;

/// Gives back the room that an empty queue no longer needs.
pub fn give_back_room<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEPT {
        *queue = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address of the room: it stays where nothing is allocated.
    fn room(queue: &VecDeque<u64>) -> (*const u64, usize) {
        (queue.as_slices().0.as_ptr(), queue.capacity())
    }

    fn fill_and_empty(queue: &mut VecDeque<u64>, count: usize) {
        (0..count as u64).for_each(|connection| queue.push_back(connection));
        for expected in 0..count as u64 {
            give_back_room(queue);
            assert_eq!(queue.pop_front(), Some(expected), "what waits is left alone");
        }
        give_back_room(queue);
    }

    #[test]
    fn a_rush_leaves_no_more_room_behind_than_is_kept() {
        let mut queue = VecDeque::new();
        fill_and_empty(&mut queue, 10_000);
        assert!(queue.capacity() <= KEPT);
    }

    #[test]
    fn bursts_that_fit_the_room_that_is_kept_allocate_nothing() {
        let mut queue = VecDeque::new();
        fill_and_empty(&mut queue, KEPT);
        let before = room(&queue);
        for burst in [1, 7, KEPT / 2, KEPT, 3, KEPT] {
            fill_and_empty(&mut queue, burst);
            assert_eq!(room(&queue).1, before.1);
        }
        queue.clear();
        queue.push_back(0);
        assert!(before.0 <= room(&queue).0 && room(&queue).0 < before.0.wrapping_add(KEPT), "the same room");
    }
}

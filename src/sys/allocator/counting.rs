//! An allocator for tests that counts how often each thread asks it for memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts. A test program makes it its own with `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

#[cfg(test)]
#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    // Without a destructor, so that it can be used at any time of a thread's life.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread asks for memory, new or more, while `work` runs.
pub fn allocations<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = ASKED.get();
    let result = work();
    (ASKED.get() - before, result)
}

// SAFETY: everything is done by the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
#[test]
fn each_request_is_counted() {
    let (count, mut list) = allocations(|| Vec::<u8>::with_capacity(10));
    assert_eq!(count, 1);
    assert_eq!(allocations(|| list.extend([0; 10])).0, 0);
    assert_eq!(allocations(|| list.push(0)).0, 1);
}

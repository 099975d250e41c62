//! An allocator that counts what a thread asks of it, for what must ask nothing.

use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::cell::Cell;

/// Counts what the current thread asks of the system's allocator.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(block) }
    }

    unsafe fn dealloc(&self, at: *mut u8, block: Block) {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, block) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the current thread has asked of the allocator so far.
pub(crate) fn calls() -> u64 {
    CALLS.get()
}

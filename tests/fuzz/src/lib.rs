//! What every fuzz target shares: it hands its input to `memwatch::fuzzing`, which says what must hold, and sees to it
//! that nobody can have a parser hold much memory by a short text.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub use libfuzzer_sys;

/// What may be held beside what the input makes: tables, a few buffers, a panic's message.
const AT_LEAST_BYTES: usize = 4 << 20;
/// What may be held for each byte of input. The most is had by lists of objects, `[{},{},...]`, of which each has room
/// for everything that it could hold.
const PER_BYTE: usize = 2048;

/// Counts what is held.
struct Held;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Held {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Held = Held;

/// Gives `input` to the parsers of a target.
///
/// # Panics
/// If something does not hold.
pub fn run(target: &str, input: &[u8]) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    memwatch::fuzzing::run(target, input);
    let held = MOST.load(Relaxed) - before;
    let most = AT_LEAST_BYTES + PER_BYTE * input.len();
    assert!(held <= most, "{held} bytes for an input of {}", input.len());
}

/// Gives signals a stack of their own, so that an input by which a parser calls itself too often is kept like one by
/// which it panics: libFuzzer's handler runs there if the default one would have.
pub fn tell_of_deep_stacks() {
    const BYTES: usize = 64 << 10;
    let stack = libc::stack_t {
        ss_sp: Box::leak(Box::new([0u8; BYTES])).as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: BYTES,
    };
    // SAFETY: the stack is never given back; a sigaction of zeros is the default one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaltstack(&stack, std::ptr::null_mut());
        libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
    }
}

/// The program of a target.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        use $crate::libfuzzer_sys;
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::tell_of_deep_stacks(),
            |input: &[u8]| $crate::run(stringify!($name), input)
        );
    };
}

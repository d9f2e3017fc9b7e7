//! What a case takes: no panic, little time, little memory.

#![expect(unsafe_code, reason = "an allocator that counts is unsafe to write")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A case may take 50 ms on a quiet machine; a busy one is given five times that.
const MOST_TIME: Duration = Duration::from_millis(250);
/// How much a case may have allocated at a time.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// What became of a case, and what it took.
pub(crate) struct Measured<T> {
    pub(crate) result: T,
    pub(crate) time: Duration,
}

/// Runs a case. One that panics fails the test under its name; so does one that takes too much.
pub(crate) fn measure<T>(name: &str, case: impl Fn() -> T) -> Measured<T> {
    let mut measured = once(name, &case);
    // Whoever was kept from running by another process is given two more tries.
    for _ in 0..2 {
        if measured.time <= MOST_TIME {
            break;
        }
        measured = once(name, &case);
    }
    assert!(measured.time <= MOST_TIME, "{name}: took {:?}", measured.time);
    measured
}

fn once<T>(name: &str, case: impl Fn() -> T) -> Measured<T> {
    let before = ALLOCATED.get();
    PEAK.set(before);
    let started = Instant::now();
    let result =
        catch_unwind(AssertUnwindSafe(&case)).unwrap_or_else(|_| panic!("{name}: panicked"));
    let time = started.elapsed();
    let bytes = PEAK.get().saturating_sub(before);
    assert!(bytes <= MOST_BYTES, "{name}: took {bytes} bytes");
    Measured { result, time }
}

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which counts what this thread holds.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(more: usize, less: usize) {
    // What was allocated by another thread may be freed by this one.
    let now = ALLOCATED.get().wrapping_add(more).saturating_sub(less);
    ALLOCATED.set(now);
    PEAK.set(PEAK.get().max(now));
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

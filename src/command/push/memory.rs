//! `Memory`: how much of what is archived at the same time may be in memory.
//!
//! What goes to a bucket, or to several repositories, is compressed into memory before it is sent. A segment is counted with its full
//! size until it is compressed, since WAL may be incompressible, and from then on with what is really held: so several are on
//! the network while the next ones are compressed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may be held at a time.
#[derive(Debug)]
pub(super) struct Memory {
    limit_bytes: u64,
    held_bytes: Mutex<u64>,
    freed: Condvar,
}

/// A part of it; given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Memory {
    pub(super) fn new(limit_bytes: u64) -> Arc<Memory> {
        Arc::new(Memory { limit_bytes, held_bytes: Mutex::default(), freed: Condvar::new() })
    }

    /// Waits until so many bytes are free, or nothing is held at all, but no longer than this.
    pub(super) fn hold(self: &Arc<Memory>, bytes: u64, patience: Duration) -> Option<Held> {
        let taken = |held: &mut u64| *held > 0 && held.saturating_add(bytes) > self.limit_bytes;
        let waited = self.freed.wait_timeout_while(self.lock(), patience, taken);
        let (mut held, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return None;
        }
        *held = held.saturating_add(bytes);
        drop(held);
        Some(Held { memory: Arc::clone(self), bytes })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.held_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// No more than this is needed from now on.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        *self.memory.lock() -= less;
        self.memory.freed.notify_all();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A holder waits until there is room, whether somebody gave all back or a part, or gives up; one that wants more than there is
    /// gets it alone.
    #[test]
    fn waits_for_room() {
        let memory = Memory::new(48);
        let (first, mut second) = (memory.hold(16, LONG), memory.hold(16, LONG).expect("there is room"));
        assert!(memory.hold(30, Duration::from_millis(10)).is_none(), "there is no room");
        let (tell, told) = mpsc::channel();
        let waiting = Arc::clone(&memory);
        let thread = std::thread::spawn(move || {
            let third = waiting.hold(30, LONG);
            tell.send(third.is_some()).expect("heard");
            drop(third);
            tell.send(waiting.hold(100, LONG).is_some()).expect("heard");
        });
        assert!(told.recv_timeout(Duration::from_millis(100)).is_err(), "there was no room");
        second.shrink_to(2);
        assert!(told.recv().expect("told"), "a part was given back");
        assert!(told.recv_timeout(Duration::from_millis(100)).is_err(), "something is held");
        drop((first, second));
        assert!(told.recv().expect("told"), "all was given back");
        thread.join().expect("ended");
        assert_eq!(*memory.lock(), 0);
    }
}

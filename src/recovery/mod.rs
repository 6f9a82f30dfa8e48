//! Bringing a cluster back to a moment: what is asked for, and how it can be reached.
//!
//! Layer 1 (domain): no I/O, no clock. [`RecoveryTarget`] is what the user asks for; the text forms of a moment are
//! read in [`moment`]. The rules by which PostgreSQL really stops are those of `recoveryStopsBefore` and
//! `recoveryStopsAfter` in its `xlogrecovery.c`.

pub mod moment;
mod target;

pub use target::{RecoveryTarget, TargetError, TargetKind};

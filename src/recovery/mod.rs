//! Bringing a cluster back to a moment: what is asked for, and how it can be reached.
//!
//! Layer 1 (domain): no I/O, no clock. [`RecoveryTarget`] is what the user asks for ([`moment`] reads the text forms of
//! a time). [`plan`] finds backup, timeline and WAL for it in a [`Snapshot`] of the repository, or says why it cannot be
//! reached. The rules by which PostgreSQL really stops are those of `recoveryStopsBefore` and `recoveryStopsAfter` in
//! its `xlogrecovery.c`; [`plan`] looks at the WAL as they do, so that it can promise the stop point beforehand.

mod after;
mod aside;
mod assemble;
mod branch;
mod choose;
mod closed;
mod fork;
mod idle;
mod locate;
pub mod moment;
mod nearest;
mod plan;
mod reach;
mod refusal;
mod retention;
mod road;
mod snapshot;
mod stored;
mod target;
mod walk;
mod window;

pub use choose::{PlanError, PlanRequest, plan};
pub use closed::{Closed, Edge, closed};
pub use fork::{BackupElsewhere, Fork, beginning};
pub use plan::{Commit, Crossing, LaidSegment, Lost, PathStep, PlanNote, RestorePlan, SegmentRun, StopPoint};
pub use refusal::{Nearest, Refusal, Unreachable, words};
pub use retention::{Circumstances, Judged, NeededWal, Retention, Verdict, judge};
pub use road::{Road, RoadSegment};
pub use snapshot::{BackupFacts, Snapshot, StoredDamage, StoredPartial, TimelineRecord, WalCopy, WalEvidence};
pub use stored::StoredSegments;
pub use target::{RecoveryTarget, TargetError, TargetKind};
pub use window::{Hole, Window, holes, windows, within};

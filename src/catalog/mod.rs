//! The small objects by which a repository tells what it holds: infos of backups, roll-ups of segments,
//! and the ledger of what was verified.
//!
//! Layer 2 (formats): values and their JSON. Where they are stored is `repository`'s business.

mod backup;
mod ledger;
mod rollup;

pub use backup::{BackupId, BackupIdError, BackupInfo, BackupWal, INFO_FORMAT, PackId, Tablespace, WalRange, WalTail};
pub use ledger::{
    LEDGER_FORMAT, Ledger, LedgerName, Spans, Verified, VerifiedBackup, VerifiedOthers, VerifiedPacks, VerifiedSegments,
};
pub use rollup::{
    GROUP_SEGMENTS, ROLL_UP_LIMIT_BYTES, RollUp, RollUpEntry, RollUpError, RollUpName, RollUpNotes, SegmentNotes,
    Straddling,
};

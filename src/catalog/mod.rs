//! The small objects by which a repository tells what it holds: infos and notes of backups, roll-ups of
//! segments, marks of what is to be removed, and the ledger of what was verified.
//!
//! Layer 2 (formats): values and their JSON. Where they are stored is `repository`'s business.

mod backup;
mod doomed;
mod ledger;
mod notes;
mod rollup;

pub use backup::{
    BackupId, BackupIdError, BackupInfo, BackupWal, INFO_FORMAT, PackId, ReadBy, Tablespace, WalRange, WalTail,
};
pub use doomed::{DOOM_FORMAT, Doom, Expired, PackRun, WalRun, pack_runs};
pub use ledger::{
    LEDGER_FORMAT, Ledger, LedgerName, Spans, Verified, VerifiedBackup, VerifiedOthers, VerifiedPacks, VerifiedSegments,
};
pub use notes::{BackupNotes, Forgotten, Keep, NOTE_FORMAT, Note, Saying, Stamp, StampError};
pub use rollup::{
    GROUP_SEGMENTS, ROLL_UP_LIMIT_BYTES, RollUp, RollUpEntry, RollUpError, RollUpName, RollUpNotes, SegmentNotes,
    Straddling,
};

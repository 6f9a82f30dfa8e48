//! The small objects by which a repository tells what it holds.
//!
//! Layer 2 (formats): values and their JSON. Where they are stored is `repository`'s business.

mod backup;

pub use backup::{BackupId, BackupIdError, BackupInfo, BackupWal, INFO_FORMAT, PackId, Tablespace, WalRange, WalTail};

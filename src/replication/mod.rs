//! Conversations with a PostgreSQL server: sessions, base backups, WAL streams.
//!
//! Layer 4 (drivers): blocking I/O over a socket, messages by `postgres-protocol`, TLS by rustls. Knows nothing of
//! repositories or of what becomes of the data. Every wait has a limit and can be interrupted ([`Patience`]).
//!
//! ```text
//! ConnInfo ──connect──► Session ──┬─ query, show, identify_system, timeline_history
//!  (conninfo)  (socket, tls, auth) ├─ (upload_manifest →) BaseBackup::start → next … → finish
//!                                 ├─ LowLevelBackup::start → look … → stop   (somebody else copies the files)
//!                                 └─ WalStream::start  → next … → stop
//! ```
//!
//! Start at [`ConnInfo::parse`] and [`Session::connect`]; the bytes are in `frames` and [`copy_data`].

mod auth;
mod backup_command;
mod base_backup;
mod certificate;
mod connect;
pub mod conninfo;
pub mod copy_data;
mod error;
mod frames;
mod identify;
mod low_level;
mod patience;
mod session;
mod socket;
mod stream;
mod tls;
mod upload;
mod wire;

pub use backup_command::BaseBackupOptions;
pub use base_backup::{BackupEnd, BackupMessage, BackupTablespace, BaseBackup, BegunBackup};
pub use conninfo::{ConnInfo, ConnInfoError};
pub use error::{ReplicationError, ServerMessage};
pub use frames::read_recorded;
pub use identify::{HistoryFile, SystemIdentity};
pub use low_level::{LowLevelBackup, LowLevelEnd};
pub use patience::Patience;
pub use session::{QueryResult, Session, SessionKind};
pub use stream::{StreamEvent, WalStream};

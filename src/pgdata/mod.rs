//! Data directories of PostgreSQL: what one holds, laying one out, and the settings that make it recover.
//!
//! Layer 4 (driver): it alone knows which files of a data directory matter and in which order they must become durable.
//! What to write comes from the caller; where it comes from is the repository's business. [`state`] tells what a
//! directory holds, [`living`] reads that of a running server for a backup, [`layout`] writes a backup into it, [`settings`] makes it recover,
//! [`start`] starts it and follows the replay.

pub mod asked;
pub mod binaries;
mod error;
mod excluded;
pub mod layout;
pub mod living;
pub mod marker;
pub mod quote;
pub mod recovering;
pub mod replay_log;
mod root;
pub mod settings;
pub mod start;
pub mod state;

pub use error::PgDataError;
pub use settings::{FetchCommand, RecoverySettings, TargetAction};
pub use start::StartError;

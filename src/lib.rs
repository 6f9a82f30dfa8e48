//! pitr
pub mod wal;

//! pitr
pub mod config;
pub mod durable;
pub mod recovery;
pub mod storage;
pub mod wal;

//! pitr
pub mod command;
pub mod config;
pub mod durable;
pub mod recovery;
pub mod report;
pub mod storage;
pub mod wal;

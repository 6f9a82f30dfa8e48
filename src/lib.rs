//! pitr
pub mod codec;
pub mod command;
pub mod config;
pub mod durable;
pub mod recovery;
pub mod report;
pub mod repository;
pub mod storage;
pub mod wal;

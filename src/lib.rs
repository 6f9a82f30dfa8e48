//! pitr
pub mod catalog;
pub mod chunk;
pub mod codec;
pub mod command;
pub mod config;
pub mod durable;
pub mod manifest;
pub mod recovery;
pub mod replication;
pub mod report;
pub mod repository;
pub mod storage;
pub mod wal;

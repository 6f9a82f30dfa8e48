//! pitr
pub mod durable;
pub mod storage;
pub mod wal;

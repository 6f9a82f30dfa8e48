//! pitr
pub mod durable;
pub mod recovery;
pub mod storage;
pub mod wal;

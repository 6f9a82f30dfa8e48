//! pitr
pub mod durable;
pub mod storage;
pub mod recovery;
pub mod wal;

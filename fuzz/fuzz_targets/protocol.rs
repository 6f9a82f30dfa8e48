//! What a server may send: a recorded conversation through all that a session reads, and what is inside `CopyData`.

#![no_main]

use bytes::Bytes;
use pitr::replication::{copy_data, read_recorded};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = copy_data::parse_backup(Bytes::copy_from_slice(bytes));
    let _ = copy_data::parse_wal(Bytes::copy_from_slice(bytes));
    let _ = read_recorded(bytes);
});

//! What a server may send: whole messages through the parser that the session uses, and what is inside `CopyData`.

#![no_main]

use bytes::{Bytes, BytesMut};
use pitr::replication::copy_data;
use postgres_protocol::message::backend::Message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = copy_data::parse_backup(Bytes::copy_from_slice(bytes));
    let _ = copy_data::parse_wal(Bytes::copy_from_slice(bytes));
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(message)) = Message::parse(&mut buffer) {
        if let Message::CopyData(body) = message {
            let _ = copy_data::parse_backup(body.into_bytes());
        }
    }
});

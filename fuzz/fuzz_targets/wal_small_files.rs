//! `pg_control`, timeline history files, and the names of WAL files.

#![no_main]

use pitr::wal::{ControlFile, TimelineHistory, TimelineId, WalFileName};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = ControlFile::parse(bytes);
    if let Ok(history) = TimelineHistory::parse(TimelineId(7), bytes) {
        assert!(history.entries().windows(2).all(|pair| pair[0].timeline < pair[1].timeline), "ancestors must rise");
    }
    if let Some(name) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<WalFileName>().ok()) {
        assert_eq!(name.to_string().as_bytes(), bytes, "a name must be read as it is written");
    }
});

//! `pg_control`, timeline history files, and the names of WAL files.

#![no_main]

use pitr::wal::{ControlFile, TimelineHistory, TimelineId, WalFileName};

/// Where the checksum of `pg_control` stands, before PostgreSQL 18 and since.
const CONTROL_FILE_ENDS: [usize; 2] = [288, 292];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = ControlFile::parse(bytes);
    for end in CONTROL_FILE_ENDS {
        let Some(content) = bytes.get(..end) else { continue };
        // With a right checksum, mutations reach the fields.
        let mended = [content, &crc32c::crc32c(content).to_le_bytes()].concat();
        let _ = ControlFile::parse(&mended);
    }
    if let Ok(history) = TimelineHistory::parse(TimelineId(7), bytes) {
        assert!(history.entries().windows(2).all(|pair| pair[0].timeline < pair[1].timeline), "ancestors must rise");
    }
    if let Some(name) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<WalFileName>().ok()) {
        assert_eq!(name.to_string().as_bytes(), bytes, "a name must be read as it is written");
    }
});

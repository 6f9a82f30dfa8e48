//! A stored WAL file as it comes from the repository: frames, details, footer.

#![no_main]

use pitr::codec::{Footer, stored};

/// Far above the seeds, so that the limit on what a frame may unpack to is reached by mutation only.
const LIMIT_BYTES: u64 = 1 << 20;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(footer) = Footer::decode(bytes) else { return };
    let mut raw = Vec::new();
    let read = stored::read(bytes, footer.file, footer.system_identifier, LIMIT_BYTES, &mut raw);
    assert!(raw.len() as u64 <= LIMIT_BYTES, "more was unpacked than allowed");
    if let Ok(read) = read {
        assert_eq!(read.raw_length, raw.len() as u64, "what is delivered is as long as it says");
    }
    let _ = stored::describe(bytes, footer.file, footer.system_identifier);
});

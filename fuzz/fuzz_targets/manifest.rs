//! A stored backup's manifest, uncompressed: what is behind the frame's own checksum.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pitr::manifest::fuzz(bytes));

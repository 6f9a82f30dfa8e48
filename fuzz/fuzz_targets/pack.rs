//! The end of a pack: its footer, and the list of what is in it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pitr::chunk::pack::fuzz(bytes));

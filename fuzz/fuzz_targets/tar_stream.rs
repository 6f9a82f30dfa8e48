//! The tar stream of a base backup, cut into pieces anywhere.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pitr::chunk::tar::fuzz(bytes));

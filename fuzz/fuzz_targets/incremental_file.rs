//! The files that servers send of what has changed in a relation.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pitr::chunk::incremental::fuzz(bytes));

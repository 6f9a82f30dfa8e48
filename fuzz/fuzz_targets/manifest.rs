//! Manifests: ours, the server's own, and the label that a backup begins with. Ours is compressed, so the input is read both as it is
//! and as the text in a sound frame: mutations reach the lines that way.

#![no_main]

use pitr::chunk::frame;
use pitr::codec::Compression;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pitr::manifest::fuzz(bytes);
    if let Ok(framed) = frame::compress(bytes, Compression::Lz4) {
        pitr::manifest::fuzz(&framed);
    }
    pitr::manifest::server::fuzz(bytes);
    let _ = pitr::wal::BackupLabel::parse(bytes);
});

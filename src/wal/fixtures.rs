//! What real servers wrote, for tests (`tests/fixtures/wal`).

use std::path::{Path, PathBuf};

use super::{SegmentHeader, SegmentName, check_segment_header};

pub(crate) const MAJORS: [u16; 6] = [13, 14, 15, 16, 17, 18];

pub(crate) fn dir(major: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wal").join(major.to_string())
}

/// A file, unpacked.
pub(crate) fn file(path: &Path) -> Vec<u8> {
    let packed = std::fs::read(path).expect("the fixture is there");
    zstd::bulk::decompress(&packed, 1 << 20).expect("the fixture can be unpacked")
}

/// All segments of a major, in order.
pub(crate) fn segments(major: u16) -> Vec<(SegmentHeader, Vec<u8>)> {
    let entries = std::fs::read_dir(dir(major)).expect("the fixtures are there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let named = paths.iter().filter_map(|path| Some((path, path.file_stem()?.to_str()?.parse::<SegmentName>().ok()?)));
    let read = named.map(|(path, name)| {
        let raw = file(path);
        (check_segment_header(&raw, name, raw.len() as u64).expect("a good header"), raw)
    });
    read.collect()
}

//! Seeds for fuzzing from what the servers wrote: one file for each resource manager, with a record of each operation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitr::wal::{
    Completeness, Event, PostgresMajor, RawRecord, RecordContent, RecordHeader, RecordVisitor, SegmentScanner,
    check_segment_header,
};

use super::harness::Postgres;

/// Longer records teach a fuzzer nothing more, but for those with an image that is compressed.
const MOST_BYTES: usize = 600;

/// The shortest record of each kind: resource manager, operation, and how its first image is compressed.
struct Kinds {
    major: PostgresMajor,
    found: BTreeMap<(u8, u8, String), Vec<u8>>,
}

impl RecordVisitor for Kinds {
    fn event(&mut self, _: Event) {}

    fn wants(&self, _: &RecordHeader) -> bool {
        true
    }

    fn record(&mut self, record: &RawRecord<'_>) {
        let Some(content) = RecordContent::of(record, self.major) else { return };
        let image = content.blocks().find_map(|block| block.image).map(|image| format!("{:?}", image.compression));
        let most = if image.as_deref().is_none_or(|image| image == "None") { MOST_BYTES } else { 4 * MOST_BYTES };
        if !record.whole || record.body.len() > most {
            return;
        }
        let header = &record.header;
        // The form that the target reads.
        let mut bytes = vec![header.manager, header.info];
        bytes.extend(&header.xid.0.to_le_bytes()[..2]);
        bytes.extend(u16::try_from(record.body.len()).expect("short").to_le_bytes());
        bytes.extend(record.body);
        let kind = (header.manager, header.operation(), image.unwrap_or_default());
        let best = self.found.entry(kind).or_insert_with(|| bytes.clone());
        if bytes.len() < best.len() {
            *best = bytes;
        }
    }
}

/// Writes them, if the environment says where to.
pub(super) fn write(postgres: &Postgres, segments: &[PathBuf]) {
    let Some(dir) = std::env::var_os("PITR_WRITE_SEEDS") else { return };
    let mut kinds = Kinds { major: PostgresMajor(0), found: BTreeMap::new() };
    for path in segments {
        let raw = std::fs::read(path).expect("the segment can be read");
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").parse().expect("a name");
        let header = check_segment_header(&raw, name, raw.len() as u64).expect("the header fits the name");
        kinds.major = header.major;
        SegmentScanner::new(&header, Completeness::MayEnd).feed_to(&raw, &mut kinds);
    }
    let mut files: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for ((manager, ..), record) in &kinds.found {
        let first = || vec![u8::try_from(postgres.major - 13).expect("a major")];
        files.entry(*manager).or_insert_with(first).extend(record);
    }
    for (manager, content) in files {
        let path = Path::new(&dir).join(format!("pg{}-{manager:02}", postgres.major));
        if !path.exists() {
            std::fs::write(path, content).expect("the seed can be written");
        }
    }
}

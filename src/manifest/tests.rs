//! Writer and reader together: what goes in comes out, and nothing that was changed gets through.

use std::io::{Read, Write};

use super::*;
use crate::catalog::{BackupId, Tablespace, WalRange};
use crate::chunk::{CHUNK_BYTES, ChunkContent, ChunkId, ChunkRef, EntryPath, Place};
use crate::wal::{BackupSource, Lsn, PgTime, PostgresMajor, SegmentSize, SystemIdentifier, TimelineId};

fn header() -> ManifestHeader {
    let id = BackupId::new(PgTime(800_000_000_000_000), 7);
    ManifestHeader {
        format: MANIFEST_FORMAT,
        id,
        cluster: "main".into(),
        system_identifier: SystemIdentifier(7_123_456_789_012_345_678),
        postgres_major: PostgresMajor(16),
        postgres_version: "16.14".into(),
        segment_size: SegmentSize::DEFAULT,
        block_size: 8192,
        page_checksums: true,
        label: "nightly".into(),
        start_lsn: Lsn(0x200_0028),
        start_timeline: TimelineId(1),
        start_time: PgTime(800_000_000_000_000),
        tablespaces: vec![Tablespace { oid: 16384, location: "/srv/ts".into() }],
        compression: "lz4".into(),
        tool_version: "0.1.0".into(),
        pack_sources: vec![id],
    }
}

fn path(text: &str) -> EntryPath {
    EntryPath::new(text.as_bytes()).expect("a good path")
}

fn chunk(raw_length: usize) -> ChunkRef {
    let base = Place { source: 0, pack: 0, offset: 17, length: 99 };
    let content = ChunkContent::Stored { id: ChunkId([3; 32]), base, sets: Vec::new() };
    ChunkRef { raw_length: raw_length as u32, crc32c: None, content }
}

fn file(name: &str, size: u64, from: u64, chunks: Vec<ChunkRef>) -> FileEntry {
    let crc32c = Some("0a0b0c0d".into());
    FileEntry { path: path(name), tablespace: None, mode: 0o600, size, modified_at: 5, from, chunks, crc32c }
}

fn lines() -> Vec<ManifestLine> {
    let full = CHUNK_BYTES as u64;
    vec![
        ManifestLine::File(file("backup_label", 227, 0, vec![chunk(227)])),
        ManifestLine::Directory(Directory { path: path("base"), tablespace: None, mode: 0o700 }),
        ManifestLine::Symlink(Symlink { path: path("pg_tblspc/16384"), target: "/srv/ts".into() }),
        ManifestLine::File(file("base/1", 2 * full + 5, 0, vec![chunk(CHUNK_BYTES), chunk(CHUNK_BYTES)])),
        ManifestLine::File(file("base/1", 2 * full + 5, 2 * full, vec![chunk(5)])),
        ManifestLine::File(file("empty", 0, 0, vec![])),
        ManifestLine::Config(ConfigFile {
            source: "/etc/x.conf".into(),
            size: 0,
            chunks: vec![],
            missing: Some("no".into()),
        }),
    ]
}

fn stop() -> ManifestStop {
    let range = WalRange { timeline: TimelineId(1), start_lsn: Lsn(0x200_0028), end_lsn: Lsn(0x200_0100) };
    ManifestStop {
        source: BackupSource::Primary,
        stop_lsn: Lsn(0x200_0100),
        stop_timeline: TimelineId(1),
        stop_time: PgTime(5),
        wal_ranges: vec![range],
        bad_pages: Vec::new(),
    }
}

fn written(lines: Vec<ManifestLine>) -> Vec<u8> {
    let mut writer = ManifestWriter::new(Vec::new(), header()).expect("a Vec takes everything");
    lines.into_iter().for_each(|line| writer.write(line).expect("a Vec takes everything"));
    writer.finish(stop()).expect("a Vec takes everything").0
}

fn read(bytes: &[u8]) -> Result<(Vec<ManifestLine>, ManifestStop), ManifestError> {
    let mut reader = ManifestReader::new(bytes)?;
    let lines = reader.by_ref().collect::<Result<_, _>>()?;
    Ok((lines, reader.stop().expect("present after the end").clone()))
}

/// Unpacks, lets `edit` change the text, and packs again: what someone with the standard tools can do.
fn edited(edit: impl Fn(String) -> String) -> Vec<u8> {
    let mut text = String::new();
    let bytes = written(lines());
    lz4_flex::frame::FrameDecoder::new(&bytes[..]).read_to_string(&mut text).expect("unpacks");
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(edit(text).as_bytes()).expect("a Vec takes everything");
    encoder.finish().expect("a Vec takes everything")
}

/// Everything written is read back, and the counts tell a file with parts once.
#[test]
fn round_trip() {
    let bytes = written(lines());
    assert_eq!(read(&bytes).expect("a good manifest"), (lines(), stop()));
    let mut reader = ManifestReader::new(&bytes[..]).expect("a good manifest");
    assert_eq!(*reader.header(), header());
    assert!(reader.stop().is_none(), "nothing is proved before the end");
    reader.verify_to_end().expect("a good manifest");
    assert_eq!((reader.counts().files, reader.counts().chunks), (3, 4));
    assert_eq!(reader.counts().raw_bytes, 227 + 2 * CHUNK_BYTES as u64 + 5);
}

/// A manifest that was cut anywhere, or has one bit flipped, is never taken for a backup with other content.
#[test]
fn damage_is_reported() {
    let good = written(lines());
    for length in 0..good.len() {
        assert!(read(&good[..length]).is_err(), "cut to {length}");
    }
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&bad).map_or(true, |found| found == (lines(), stop())), "bit {bit}");
    }
    assert!(read(&[&good[..], b"x"].concat()).is_err());
}

/// Edits with the standard tools, which leave every frame checksum right, are reported all the same.
#[test]
fn edits_are_reported() {
    assert!(read(&edited(|text| text)).is_ok(), "repacking alone changes nothing");
    let drop_line = |text: String, number: usize| {
        text.lines().enumerate().filter(|(i, _)| *i != number).map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let count = lines().len() + 3;
    for number in 0..count {
        assert!(read(&edited(|text| drop_line(text, number))).is_err(), "line {number} dropped");
    }
    let swaps = [
        ("\"label\":\"nightly\"", "\"label\":\"weekly\""),
        ("0/2000100", "0/2000200"),
        ("\"files\":3", "\"files\":2"),
        ("\"size\":227", "\"size\":226"),
        ("\"mode\":384", "\"mode\":420"),
        ("\"o\":17", "\"o\":18"),
        ("/srv/ts", "/srv/tt"),
    ];
    for (from, to) in swaps {
        let bytes = edited(|text| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        assert!(read(&bytes).is_err(), "{from} to {to}");
    }
    let newer = edited(|text| text.replace("\"format\":1", "\"format\":2"));
    assert!(matches!(read(&newer), Err(ManifestError::Format { found: 2 })));
    assert!(read(&edited(|text| text.clone() + &text)).is_err());
}

/// A well-formed manifest with gaps in a file, or references to nowhere, is refused even with a good checksum.
#[test]
fn inconsistent_files_are_refused() {
    let full = CHUNK_BYTES as u64;
    let mut elsewhere = chunk(5);
    if let ChunkContent::Stored { base, .. } = &mut elsewhere.content {
        base.source = 1;
    }
    for wrong in [
        vec![file("a", 10, 0, vec![chunk(5)])],
        vec![file("a", 10, 0, vec![chunk(5), chunk(5)])],
        vec![file("a", 5, 0, vec![])],
        vec![file("a", 0, 0, vec![chunk(5)])],
        vec![file("a", full + 5, 0, vec![chunk(CHUNK_BYTES)])],
        vec![file("a", full + 5, full, vec![chunk(5)])],
        vec![file("a", full + 5, 0, vec![chunk(CHUNK_BYTES)]), file("b", full + 5, full, vec![chunk(5)])],
        vec![file("a", 5, 0, vec![elsewhere])],
    ] {
        let bytes = written(wrong.iter().cloned().map(ManifestLine::File).collect());
        assert!(read(&bytes).is_err(), "{wrong:?}");
    }
}

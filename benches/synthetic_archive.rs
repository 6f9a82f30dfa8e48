//! Makes a large archive in no time: true descriptions of segments that hold one commit each, without their bodies.
//!
//! `synthetic-archive DIRECTORY SEGMENTS` makes a repository with one cluster, five base backups and so many segments of
//! 16 MiB, one a minute, and a `pitr.toml` beside it. Only what a plan reads whole has a true body: the segments around the
//! backups and around the targets, which are printed as JSON. Nothing is synced: it is for measurements alone.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use pitr::catalog::{BackupId, BackupInfo, BackupWal, INFO_FORMAT, WalRange};
use pitr::codec::{Compression, Details, Footer, Origin, stored};
use pitr::manifest::{MANIFEST_FORMAT, ManifestHeader, ManifestStop, ManifestWriter};
use pitr::repository::{Repository, ServerRecord, ServerRepository};
use pitr::storage::Directory;
use pitr::wal::{
    BackupSource, Completeness, Lsn, PgTime, PostgresMajor, SegmentName, SegmentNo, SegmentSize, SystemIdentifier,
    TimelineId, WalFileName, check_segment_header, scan_segment,
};

const CLUSTER: SystemIdentifier = SystemIdentifier(7_312_345_678_901_234_567);
const MAJOR: PostgresMajor = PostgresMajor(15);
const TIMELINE: TimelineId = TimelineId(1);
const MINUTE_US: i64 = 60_000_000;
/// 2024-01-01 00:00 UTC.
const BEGIN: PgTime = PgTime(757_382_400_000_000);
const PAGE: usize = 8192;
const RECORD_HEADER: usize = 24;

fn size() -> SegmentSize {
    SegmentSize::DEFAULT
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, directory, count] = words.as_slice() else {
        return Err("usage: synthetic-archive DIRECTORY SEGMENTS".into());
    };
    let (directory, count) = (Path::new(directory), count.parse::<u64>()?);
    let repository = directory.join("repository");
    fs::create_dir_all(&repository)?;
    let cluster = Repository::create(Arc::new(Directory::open(&repository)?), BEGIN)?.cluster(&"main".parse()?);
    cluster.add_server(&ServerRecord {
        system_identifier: CLUSTER,
        major: MAJOR,
        segment_size_bytes: size(),
        page_checksums: false,
        created_at: BEGIN,
        created_by: "bench".to_owned(),
        upgraded_from: None,
    })?;
    let server = cluster.server(CLUSTER);
    let backups: Vec<u64> = [0, 25, 50, 75, 95].iter().map(|percent| 2 + count * percent / 100).collect();
    let near = count * 97 / 100;
    let far = count - 10;
    let around = |number: u64| number.saturating_sub(3)..=number + 3;
    let read: BTreeSet<u64> = backups.iter().chain([&near, &far, &count]).flat_map(|number| around(*number)).collect();
    let mut first = None;
    for start in &backups {
        let id = backup(&server, SegmentNo(*start))?;
        first.get_or_insert(id);
    }
    let wal = repository.join(format!("main/{CLUSTER}/wal/{}", TIMELINE.to_hex()));
    let mut folder = None;
    for number in (1..=count).map(SegmentNo) {
        let name = SegmentName::new(TIMELINE, number, size());
        let path = wal.join(name.group().to_string());
        if folder.as_ref() != Some(&path) {
            fs::create_dir_all(&path)?;
            folder = Some(path.clone());
        }
        fs::write(path.join(name.to_string()), segment(number, name, read.contains(&number.0))?)?;
    }
    fs::write(
        directory.join("pitr.toml"),
        format!(
            "[repository]\npath = \"{}\"\n\n[cluster.main]\nsystem_identifier = \"{CLUSTER}\"\n",
            repository.display()
        ),
    )?;
    let first = first.ok_or("there are backups")?;
    let time = |number: u64| PgTime(commit_time(SegmentNo(number)).0 + MINUTE_US / 2);
    println!("{{\"near\": \"{}\", \"far\": \"{}\", \"first_backup\": \"{first}\"}}", time(near), time(far));
    Ok(())
}

fn commit_time(number: SegmentNo) -> PgTime {
    PgTime(BEGIN.0 + i64::try_from(number.0).unwrap_or(0) * MINUTE_US)
}

/// The object of one segment, with its true body or with none to speak of.
fn segment(number: SegmentNo, name: SegmentName, with_body: bool) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut raw = first_page(number);
    let header = check_segment_header(&raw, name, size().bytes())?;
    let scan = scan_segment(&raw, &header, Completeness::Complete);
    if with_body {
        raw.resize(usize::try_from(size().bytes())?, 0);
    } else {
        raw.truncate(16);
    }
    let origin = Origin {
        host: "db1.example.org".to_owned(),
        source: "/var/lib/postgresql/15/main".to_owned(),
        program: "pitr-wal-push 0.1.0".to_owned(),
    };
    let details = Details { archived_by: origin, head: scan.head, tail: scan.tail, ..Details::default() };
    let footer = Footer {
        system_identifier: CLUSTER,
        file: WalFileName::Segment(name),
        segment_size: Some(size()),
        major: Some(MAJOR),
        raw_length: 0,
        raw_crc: 0,
        body_length: 0,
        details_length: 0,
        archived_at: commit_time(number),
        facts: Some(scan.facts),
        damaged: false,
    };
    let mut object = Vec::new();
    stored::write(&raw, footer, &details, Compression::Zstd(1), &mut object)?;
    Ok(object)
}

/// A commit and a switch: all that is in a segment.
fn first_page(number: SegmentNo) -> Vec<u8> {
    let start = number.start(size());
    let mut page = Vec::with_capacity(PAGE);
    page.extend_from_slice(&0xD110_u16.to_le_bytes());
    page.extend_from_slice(&2_u16.to_le_bytes());
    page.extend_from_slice(&TIMELINE.0.to_le_bytes());
    page.extend_from_slice(&start.0.to_le_bytes());
    page.extend_from_slice(&[0; 8]);
    page.extend_from_slice(&CLUSTER.0.to_le_bytes());
    page.extend_from_slice(&u32::from(size()).to_le_bytes());
    page.extend_from_slice(&8192_u32.to_le_bytes());
    let commit = page.len() as u64;
    let switch_before = SegmentNo(number.0 - 1).start(size()).0 + commit + 40;
    let mut body = vec![255, 8];
    body.extend_from_slice(&commit_time(number).0.to_le_bytes());
    #[allow(clippy::cast_possible_truncation)] // A xid is the low half of a counter.
    record(&mut page, 700 + number.0 as u32, switch_before, 0x00, 1, &body);
    record(&mut page, 0, start.0 + commit, 0x40, 0, &[]);
    page.resize(PAGE, 0);
    page
}

fn record(page: &mut Vec<u8>, xid: u32, previous: u64, info: u8, manager: u8, body: &[u8]) {
    let mut header = Vec::with_capacity(RECORD_HEADER);
    #[allow(clippy::cast_possible_truncation)] // A few bytes.
    header.extend_from_slice(&((RECORD_HEADER + body.len()) as u32).to_le_bytes());
    header.extend_from_slice(&xid.to_le_bytes());
    header.extend_from_slice(&previous.to_le_bytes());
    header.extend_from_slice(&[info, manager, 0, 0]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(body), &header);
    header.extend_from_slice(&crc.to_le_bytes());
    page.extend_from_slice(&header);
    page.extend_from_slice(body);
    page.resize(page.len().next_multiple_of(8), 0);
}

/// A base backup of nothing, consistent two segments after its start.
fn backup(server: &ServerRepository, start: SegmentNo) -> Result<BackupId, Box<dyn Error>> {
    let (start_lsn, stop_lsn) = (Lsn(start.start(size()).0 + 40), Lsn(start.next().start(size()).0 + 40));
    let (start_time, stop_time) = (commit_time(start), commit_time(start.next()));
    let id = BackupId::new(start_time, 1);
    let range = WalRange { timeline: TIMELINE, start_lsn, end_lsn: stop_lsn };
    let (compression, tool_version) = ("lz4".to_owned(), "0.1.0".to_owned());
    let header = ManifestHeader {
        format: MANIFEST_FORMAT,
        id,
        cluster: "main".to_owned(),
        system_identifier: CLUSTER,
        postgres_major: MAJOR,
        postgres_version: "15.18".to_owned(),
        segment_size: size(),
        block_size: 8192,
        page_checksums: false,
        label: "synthetic".to_owned(),
        start_lsn,
        start_timeline: TIMELINE,
        start_time,
        tablespaces: Vec::new(),
        compression: compression.clone(),
        tool_version: tool_version.clone(),
        pack_sources: vec![id],
    };
    let stop = ManifestStop {
        source: BackupSource::Primary,
        stop_lsn,
        stop_timeline: TIMELINE,
        stop_time,
        wal_ranges: vec![range],
        bad_pages: Vec::new(),
    };
    let (manifest, _) = ManifestWriter::new(server.create_manifest(id)?, header)?.finish(stop)?;
    server.put_backup_info(&BackupInfo {
        format: INFO_FORMAT,
        id,
        cluster: "main".to_owned(),
        system_identifier: CLUSTER,
        postgres_major: MAJOR,
        postgres_version: "15.18".to_owned(),
        segment_size: size(),
        label: "synthetic".to_owned(),
        source: BackupSource::Primary,
        start_lsn,
        start_timeline: TIMELINE,
        start_time,
        stop_lsn,
        stop_timeline: TIMELINE,
        stop_time,
        wal_ranges: vec![range],
        tablespaces: Vec::new(),
        files: 0,
        raw_bytes: 0,
        stored_bytes: 0,
        packs: 0,
        parent: None,
        referenced_bytes: 0,
        changed_only: false,
        read: pitr::catalog::ReadBy::Protocol,
        compression,
        page_checksums: false,
        bad_pages: 0,
        wal: BackupWal::Archive,
        configuration_missing: Vec::new(),
        tool_version,
    })?;
    server.publish_manifest(id, manifest)?;
    Ok(id)
}

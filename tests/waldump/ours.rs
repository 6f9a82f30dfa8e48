//! What our reader says.

use std::path::PathBuf;

use pitr::wal::{
    Borders, Completeness, DATA_PAGE_SIZE, Event, EventKind, HeapChange, Joined, Lsn, PIECE_BYTES_LIMIT, PostgresMajor,
    RawRecord, RecordContent, RecordHeader, RecordVisitor, SegmentEnding, SegmentName, SegmentScanner,
    check_segment_header, is_heap_change,
};

use super::record::{Block, Image, Record};

/// A record, and what is said about its content.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) record: Record,
    pub(super) end: Lsn,
    /// All of it was handed out, so all of its blocks are here.
    pub(super) whole: bool,
    pub(super) event: Option<Event>,
}

/// A page that a record carries.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) lsn: Lsn,
    pub(super) block: Block,
    pub(super) bytes: [u8; DATA_PAGE_SIZE],
}

/// Takes everything.
#[derive(Debug)]
pub(super) struct Everything {
    major: PostgresMajor,
    pub(super) records: Vec<Read>,
    /// Kept if `keep_pages`.
    pub(super) pages: Vec<Page>,
    keep_pages: bool,
}

impl RecordVisitor for Everything {
    fn event(&mut self, event: Event) {
        let last = self.records.last_mut().expect("an event's record comes before it");
        assert_eq!((event.lsn, event.end_lsn), (last.record.lsn, last.end));
        assert_eq!(last.event.replace(event), None, "one event a record");
    }

    fn wants(&self, _: &RecordHeader) -> bool {
        true
    }

    fn record(&mut self, raw: &RawRecord<'_>) {
        let content = RecordContent::of(raw, self.major);
        let (mut blocks, mut image_length) = (Vec::new(), 0);
        if let Some(content) = &content {
            assert!(content.data_whole || !raw.whole, "{}: the main data is short", raw.lsn);
            let readable =
                !is_heap_change(raw.header.manager, raw.header.info) || HeapChange::read(raw, content).is_some();
            assert!(readable || !raw.whole, "{}: a change of rows cannot be read", raw.lsn);
            for block in content.blocks() {
                let mut told =
                    Block { id: block.id, file: block.file, fork: block.fork, block: block.block, image: None };
                if let Some(image) = block.image {
                    image_length += image.bytes.len();
                    let mut page = [0xAA; DATA_PAGE_SIZE];
                    image.restore(&mut page).unwrap_or_else(|error| panic!("{}: {error}", raw.lsn));
                    told.image = Some(Image {
                        applied: image.applied,
                        hole_offset: image.hole_offset,
                        hole_length: image.hole_length,
                        compression: image.compression,
                        saved: DATA_PAGE_SIZE - usize::from(image.hole_length) - image.bytes.len(),
                    });
                    if self.keep_pages {
                        self.pages.push(Page { lsn: raw.lsn, block: told.clone(), bytes: page });
                    }
                }
                blocks.push(told);
            }
        }
        assert!(content.is_some() || !raw.whole, "{}: not made as records are", raw.lsn);
        let header = &raw.header;
        let record = Record {
            lsn: raw.lsn,
            previous: header.previous,
            manager: header.manager,
            xid: header.xid.0,
            length: header.length,
            image_length: u32::try_from(image_length).expect("less than the record"),
            blocks,
        };
        self.records.push(Read { record, end: raw.end_lsn, whole: raw.whole, event: None });
    }
}

/// Reads consecutive segments of a timeline, the last of which may be unfinished.
pub(super) fn read(segments: &[PathBuf], keep_pages: bool) -> Everything {
    let mut borders = Borders::new();
    let mut all = Everything { major: PostgresMajor(0), records: Vec::new(), pages: Vec::new(), keep_pages };
    for (at, path) in segments.iter().enumerate() {
        let raw = std::fs::read(path).expect("the segment can be read");
        let name: SegmentName =
            path.file_name().and_then(|name| name.to_str()).expect("a name").parse().expect("a name");
        let header = check_segment_header(&raw, name, raw.len() as u64).expect("the header fits the name");
        all.major = header.major;
        let last = at + 1 == segments.len();
        let completeness = if last { Completeness::MayEnd } else { Completeness::Complete };
        let mut scanner = SegmentScanner::new(&header, completeness).after(borders.clone());
        raw.chunks(300_007).for_each(|piece| scanner.feed_to(piece, &mut all));
        let scan = scanner.finish();
        assert_eq!((scan.damage, scan.unread), (None, 0), "{name}");
        assert!(last || scan.facts.ending != SegmentEnding::Unfinished, "{name}");
        let middle = scan.head.as_ref().is_some_and(|head| !head.is_last());
        match borders.pass(scan.head, scan.tail, header.major) {
            Joined::Nothing | Joined::Proved { .. } | Joined::Overwritten => {}
            Joined::Incomplete => assert!(at == 0 || middle, "{name}"),
            Joined::Damaged(damage) => panic!("{name}: {damage}"),
        }
    }
    check_order(&all.records);
    all
}

/// Records stand one behind the other, with nothing between but a page's header, or the record that a crash cut off. What is not whole is too long to be kept.
fn check_order(records: &[Read]) {
    for pair in records.windows(2) {
        let (one, two) = (&pair[0], &pair[1].record);
        let lost =
            matches!(pair[1].event.as_ref().map(|event| &event.kind), Some(EventKind::OverwriteContrecord { .. }));
        let switch = (one.record.manager, one.record.length) == (0, 24);
        let gap = two.lsn.checked_sub(one.end);
        assert!(switch || lost || gap.is_some_and(|gap| [0, 24, 40].contains(&gap)), "{} to {}", one.end, two.lsn);
    }
    for read in records.iter().filter(|read| !read.whole) {
        assert!(read.record.length as usize > PIECE_BYTES_LIMIT, "{} is not whole", read.record.lsn);
    }
}

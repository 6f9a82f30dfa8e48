//! A visitor that wants every record, and reads all there is to read in it.

use pitr::wal::names::{CatalogCopy, RelationNames};
use pitr::wal::{
    DATA_PAGE_SIZE, Event, HeapChange, HeapChangeKind, HeapTuple, Lsn, PostgresMajor, RawRecord, RecordContent,
    RecordHeader, RecordVisitor, RelationFile, is_heap_change,
};

/// The database whose catalog is known.
const DATABASE: u32 = 5;
const DEFAULT_TABLESPACE: u32 = 1663;
const PG_CLASS: u32 = 1259;
const PG_DATABASE: u32 = 1262;

pub struct Everything {
    major: PostgresMajor,
    names: RelationNames,
    /// How many records it saw.
    pub records: usize,
}

impl Everything {
    pub fn new(major: PostgresMajor) -> Self {
        let mut copy = CatalogCopy::new(major, Lsn(8), Lsn(16));
        copy.shared_map(&relation_map(PG_DATABASE));
        copy.database_map(DEFAULT_TABLESPACE, DATABASE, &relation_map(PG_CLASS));
        Everything { major, names: copy.into_names(), records: 0 }
    }

    /// Asks for what was gathered.
    pub fn finish(&self) {
        for relation in self.names.relations(DATABASE) {
            let _ = self.names.relation(DATABASE, relation.oid);
        }
        let file = RelationFile { tablespace: DEFAULT_TABLESPACE, database: DATABASE, relation: PG_CLASS };
        let _ = (self.names.name_of(file), self.names.notes().len());
    }
}

impl RecordVisitor for Everything {
    fn event(&mut self, event: Event) {
        let _ = self.names.event(&event);
    }

    fn wants(&self, _: &RecordHeader) -> bool {
        true
    }

    fn record(&mut self, record: &RawRecord<'_>) {
        self.records += 1;
        read(record, self.major);
        // As if its end had not been kept.
        for part in [record.body.len() / 2, record.body.len().saturating_sub(1)] {
            read(&RawRecord { body: &record.body[..part], whole: false, ..*record }, self.major);
        }
        if self.names.wants(&record.header) {
            self.names.record(record);
        }
    }
}

fn read(record: &RawRecord<'_>, major: PostgresMajor) {
    let Some(content) = RecordContent::of(record, major) else { return };
    let mut page = [0; DATA_PAGE_SIZE];
    for image in content.blocks().filter_map(|block| block.image) {
        let _ = image.restore(&mut page);
    }
    let change = HeapChange::read(record, &content);
    assert!(change.is_none() || is_heap_change(record.header.manager, record.header.info));
    let split = |tuple: HeapTuple<'_>| tuple.split().map_or(0, |(nulls, columns)| nulls.len() + columns.len());
    match change.map(|change| change.kind) {
        Some(HeapChangeKind::Insert { tuple: Some(tuple), .. }) => assert!(split(tuple) <= tuple.bytes.len()),
        Some(HeapChangeKind::MultiInsert { count, tuples: Some(tuples) }) => {
            assert!(tuples.rows().map(|(_, tuple)| split(tuple)).count() <= usize::from(count));
        }
        Some(HeapChangeKind::Update { tuple: Some(updated), .. }) => {
            let _ = (split(updated.tuple), updated.columns(&page[..100]), updated.is_whole());
        }
        _ => {}
    }
}

/// A `pg_filenode.map` with one catalog, whose file has its number.
fn relation_map(oid: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = [0x0059_2717, 1, oid, oid].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    bytes.resize(504, 0);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}

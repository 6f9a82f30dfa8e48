//! Records that change the catalogs: which are wanted, and what each does.

use super::super::bytes::{i32_at, u16_at, u32_at};
use super::super::record::{RM_DBASE, RM_HEAP, RM_HEAP2, RM_SMGR, RM_XACT, RM_XLOG};
use super::super::{PostgresMajor, RawRecord, RecordContent, RecordHeader, Xid};
use super::RelationNames;

/// `RM_RELMAP_ID`
const RM_RELMAP: u8 = 7;

/// Operations of `RM_XLOG`: page images.
const XLOG_FPI_FOR_HINT: u8 = 0xA0;
const XLOG_FPI: u8 = 0xB0;
/// Of `RM_SMGR`: a new file.
const SMGR_CREATE: u8 = 0x10;
/// Of `RM_XACT`, in three of the four bits.
const XACT_OPERATION_MASK: u8 = 0x70;
const XACT_PREPARE: u8 = 0x10;

impl RelationNames {
    /// Whether a record is to be handed to [`RelationNames::record`].
    #[must_use]
    #[inline]
    pub fn wants(&self, header: &RecordHeader) -> bool {
        match header.manager {
            RM_HEAP | RM_HEAP2 | RM_DBASE | RM_RELMAP => true,
            RM_XLOG => matches!(header.operation(), XLOG_FPI | XLOG_FPI_FOR_HINT),
            RM_SMGR => header.operation() == SMGR_CREATE,
            RM_XACT => header.info & XACT_OPERATION_MASK == XACT_PREPARE,
            _ => false,
        }
    }

    /// Takes in the next wanted record, in LSN order with the events ([`RelationNames::event`]).
    pub fn record(&mut self, record: &RawRecord<'_>) {
        if let Some(content) = RecordContent::of(record, self.major) {
            self.content(record, &content);
        }
    }

    /// As [`RelationNames::record`], of a record that was taken apart already.
    pub fn content(&mut self, record: &RawRecord<'_>, content: &RecordContent<'_>) {
        self.pass(record.lsn);
        let (header, data) = (&record.header, content.data);
        if matches!(header.manager, RM_HEAP | RM_HEAP2 | RM_XLOG) {
            return self.blocks(record, content);
        }
        self.generation += 1;
        match header.manager {
            RM_SMGR => self.file_made(header.xid, data),
            RM_RELMAP => self.map_changed(data),
            RM_DBASE => self.databases_changed(header, data),
            RM_XACT => {
                for xid in prepared_transactions(data, self.major) {
                    self.open.entry(xid).or_default().prepared = true;
                }
            }
            _ => {}
        }
    }

    fn databases_changed(&mut self, header: &RecordHeader, data: &[u8]) {
        // 15 brought a second way to create a database, and moved the number of DROP.
        match (header.operation(), self.major.0 >= 15) {
            (0x00, _) => self.database_copied(data),
            (0x10, true) => self.database_made(header.xid, data),
            (0x10, false) | (0x20, true) => self.database_dropped(data),
            _ => {}
        }
    }
}

/// The transactions in a prepare record or a file of `pg_twophase` (`TwoPhaseFileHeader` in `twophase.c`): the prepared one and
/// its subtransactions.
pub(super) fn prepared_transactions(data: &[u8], major: PostgresMajor) -> Vec<Xid> {
    // 15 brought two counts of statistics to be dropped.
    let (name_length_at, header_size) = if major.0 >= 15 { (54, 72) } else { (46, 64) };
    let read = || {
        let top = Xid(u32_at(data, 8)?);
        let count = usize::try_from(i32_at(data, 28)?).ok()?;
        let name_length = usize::from(u16_at(data, name_length_at)?);
        let subtransactions = data.get(header_size + name_length.next_multiple_of(8)..)?;
        let xids = subtransactions.chunks_exact(4).take(count).filter_map(|word| u32_at(word, 0)).map(Xid);
        Some([top].into_iter().chain(xids).collect())
    };
    read().unwrap_or_default()
}

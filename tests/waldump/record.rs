//! A record as both readers tell it, so that two can be compared.

use pitr::wal::{ImageCompression, Lsn, RelationFile};

/// What is told of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) lsn: Lsn,
    pub(super) previous: Lsn,
    pub(super) manager: u8,
    pub(super) xid: u32,
    pub(super) length: u32,
    /// Bytes of its page images.
    pub(super) image_length: u32,
    pub(super) blocks: Vec<Block>,
}

/// A block reference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Block {
    pub(super) id: u8,
    pub(super) file: RelationFile,
    pub(super) fork: u8,
    pub(super) block: u32,
    pub(super) image: Option<Image>,
}

/// A page image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Image {
    pub(super) applied: bool,
    pub(super) hole_offset: u16,
    pub(super) hole_length: u16,
    pub(super) compression: ImageCompression,
    /// Bytes that compression saved.
    pub(super) saved: usize,
}

//! Keys of the repository's objects. The only place that spells them.

use std::fmt;
use std::str::FromStr;

use crate::catalog::{BackupId, LedgerName, PackId, RollUpName, Stamp};
use crate::storage::Key;
use crate::wal::{ClusterName, NameError, SegmentGroup, SegmentName, SystemIdentifier, TimelineId, WalFileName};

/// Names of what lies in a backup's folder.
pub(super) const MANIFEST: &str = "manifest";
pub(super) const NOTES: &str = "notes";

/// A key of parts that are all made from checked names.
fn key(base: &Key, part: &str) -> Key {
    base.join(part).expect("names of clusters, identifiers and WAL files are made of characters that keys allow")
}

pub(super) fn marker() -> Key {
    key(&Key::root(), "pitr.json")
}

pub(super) fn cluster(name: &ClusterName) -> Key {
    key(&Key::root(), name.as_str())
}

pub(super) fn server(name: &ClusterName, identifier: SystemIdentifier) -> Key {
    key(&cluster(name), &identifier.to_string())
}

pub(super) fn server_record(name: &ClusterName, identifier: SystemIdentifier) -> Key {
    key(&server(name, identifier), "server.json")
}

/// The folder of all WAL of a server.
pub(super) fn wal(server: &Key) -> Key {
    key(server, "wal")
}

/// The folder of one timeline's WAL.
pub(super) fn timeline(server: &Key, timeline: TimelineId) -> Key {
    key(&wal(server), &timeline.to_hex())
}

/// The folder of one group of a timeline.
pub(super) fn group(server: &Key, group: SegmentGroup) -> Key {
    key(&timeline(server, group.timeline()), &group.to_string())
}

/// The folder of one timeline's roll-ups.
pub(super) fn catalog(server: &Key, timeline: TimelineId) -> Key {
    key(&key(server, "catalog"), &timeline.to_hex())
}

/// A roll-up.
pub(super) fn roll_up(server: &Key, name: RollUpName) -> Key {
    key(&catalog(server, name.group.timeline()), &name.to_string())
}

/// A timeline's history file.
pub(super) fn history(server: &Key, timeline: TimelineId) -> Key {
    key(&wal(server), &format!("{}.history", timeline.to_hex()))
}

/// An object of a group.
pub(super) fn object(server: &Key, name: WalObjectName) -> Key {
    key(&group(server, name.segment().group()), &name.to_string())
}

/// The folder of all backups of a server.
pub(super) fn backups(server: &Key) -> Key {
    key(server, "backups")
}

/// The folder of one backup.
pub(super) fn backup(server: &Key, id: BackupId) -> Key {
    key(&backups(server), &id.to_string())
}

/// What is known of a backup without its manifest.
pub(super) fn backup_info(server: &Key, id: BackupId) -> Key {
    key(&backup(server, id), "info")
}

/// The commit point of a backup.
pub(super) fn manifest(server: &Key, id: BackupId) -> Key {
    key(&backup(server, id), MANIFEST)
}

/// The beginning of a segment that a backup brought along.
pub(super) fn tail(server: &Key, id: BackupId, segment: SegmentName) -> Key {
    key(&key(&backup(server, id), "wal"), &format!("{segment}.tail"))
}

/// The folder of a backup's notes.
pub(super) fn notes(server: &Key, id: BackupId) -> Key {
    key(&backup(server, id), NOTES)
}

/// A note of a backup.
pub(super) fn note(server: &Key, id: BackupId, stamp: Stamp) -> Key {
    key(&notes(server, id), &stamped(stamp))
}

/// The folder of the marks of what is to be removed.
pub(super) fn dooms(server: &Key) -> Key {
    key(server, "doomed")
}

/// A mark.
pub(super) fn doom(server: &Key, stamp: Stamp) -> Key {
    key(&dooms(server), &stamped(stamp))
}

/// The folder of the records of WAL that retention removed.
pub(super) fn expired(server: &Key) -> Key {
    key(server, "expired")
}

/// Such a record.
pub(super) fn expired_record(server: &Key, stamp: Stamp) -> Key {
    key(&expired(server), &stamped(stamp))
}

fn stamped(stamp: Stamp) -> String {
    format!("{stamp}.json")
}

/// The stamp in an object's name, if that is one.
pub(super) fn stamp(name: &str) -> Option<Stamp> {
    name.strip_suffix(".json")?.parse().ok()
}

/// The folder of all packs of a server.
pub(super) fn packs(server: &Key) -> Key {
    key(server, "packs")
}

/// A pack.
pub(super) fn pack(server: &Key, id: PackId) -> Key {
    key(&packs(server), &id.to_string())
}

/// The folder of the ledger of what was verified.
pub(super) fn verified(server: &Key) -> Key {
    key(server, "verified")
}

/// An object of the ledger.
pub(super) fn ledger(server: &Key, name: LedgerName) -> Key {
    key(&verified(server), &name.to_string())
}

/// The last part of an object's key in a group of WAL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WalObjectName {
    /// A complete segment, under its own name.
    Segment(SegmentName),
    /// A `.partial`, with the first 64 bits of its content's BLAKE3: two promotions may leave two different ones.
    Partial(SegmentName, u64),
    /// A segment whose records make no sense from some point on. The true name stays free for a good copy.
    Damaged(SegmentName, u64),
    /// A backup history file: segment and offset.
    Backup(SegmentName, u32),
}

impl WalObjectName {
    /// The segment that the name begins with.
    #[must_use]
    pub fn segment(self) -> SegmentName {
        match self {
            WalObjectName::Segment(name)
            | WalObjectName::Partial(name, _)
            | WalObjectName::Damaged(name, _)
            | WalObjectName::Backup(name, _) => name,
        }
    }

    /// The WAL file that the object holds.
    #[must_use]
    pub fn file(self) -> WalFileName {
        match self {
            WalObjectName::Segment(name) | WalObjectName::Damaged(name, _) => WalFileName::Segment(name),
            WalObjectName::Partial(name, _) => WalFileName::Partial(name),
            WalObjectName::Backup(segment, offset) => WalFileName::Backup { segment, offset },
        }
    }
}

impl fmt::Display for WalObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalObjectName::Segment(name) => write!(f, "{name}"),
            WalObjectName::Partial(name, hash) => write!(f, "{name}.partial.{hash:016x}"),
            WalObjectName::Damaged(name, hash) => write!(f, "{name}.damaged.{hash:016x}"),
            WalObjectName::Backup(segment, offset) => {
                write!(f, "{}", WalFileName::Backup { segment: *segment, offset: *offset })
            }
        }
    }
}

impl FromStr for WalObjectName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::WalFile(text.to_owned());
        let hash = |digits: &str| {
            let plain = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if plain { u64::from_str_radix(digits, 16).map_err(|_| wrong()) } else { Err(wrong()) }
        };
        if let Some((segment, digits)) = text.split_once(".partial.") {
            return Ok(WalObjectName::Partial(segment.parse()?, hash(digits)?));
        }
        if let Some((segment, digits)) = text.split_once(".damaged.") {
            return Ok(WalObjectName::Damaged(segment.parse()?, hash(digits)?));
        }
        match text.parse()? {
            WalFileName::Segment(name) => Ok(WalObjectName::Segment(name)),
            WalFileName::Backup { segment, offset } => Ok(WalObjectName::Backup(segment, offset)),
            WalFileName::Partial(_) | WalFileName::History(_) => Err(wrong()),
        }
    }
}

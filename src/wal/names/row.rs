//! Rows of `pg_class`, `pg_namespace` and `pg_database`, as far as names need them.
//!
//! Only the columns before the first of variable width are read: they stand at fixed offsets (`pg_class.h`,
//! `pg_namespace.h`, `pg_database.h` of each version), which is all that makes a row of a foreign catalog readable.
//!
//! | `pg_class` | offset | `pg_database` | 13, 14 | 15 and later |
//! |---|---|---|---|---|
//! | oid | 0 | oid | 0 | 0 |
//! | relname | 4 | datname | 4 | 4 |
//! | relnamespace | 68 | dattablespace | 224 | 92 |
//! | relfilenode | 88 | | | |
//! | reltablespace | 92 | **`pg_namespace`** | | |
//! | reltoastrelid | 108, from 18 on 112 | oid | 0 | 0 |
//! | relpersistence | 114, from 18 on 118 | nspname | 4 | 4 |
//! | relkind | 115, from 18 on 119 | | | |

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::PostgresMajor;
use super::super::bytes::{i32_at, u32_at};

/// Bytes of a name, zeros behind it included (`NAMEDATALEN`).
const NAME_SIZE: usize = 64;

/// What a relation is (`pg_class.relkind`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationKind {
    /// An ordinary table, a partition too.
    Table,
    /// An index.
    Index,
    /// A sequence.
    Sequence,
    /// What is too long for the rows of another table.
    Toast,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A composite type.
    CompositeType,
    /// A table elsewhere.
    ForeignTable,
    /// A table of partitions.
    PartitionedTable,
    /// An index of the partitions' indexes.
    PartitionedIndex,
    /// Property graphs and what else later versions have.
    Other,
}

/// Whether a row of `pg_database` says `DATCONNLIMIT_INVALID_DB` as its `datconnlimit`.
pub(super) fn is_invalid_database(data: &[u8], major: PostgresMajor) -> bool {
    // 15 made the two columns before it longer than a name.
    let at = if major.0 >= 15 { 80 } else { 208 };
    i32_at(data, at) == Some(-2)
}

impl RelationKind {
    fn from_byte(byte: u8) -> Self {
        match byte {
            b'r' => RelationKind::Table,
            b'i' => RelationKind::Index,
            b'S' => RelationKind::Sequence,
            b't' => RelationKind::Toast,
            b'v' => RelationKind::View,
            b'm' => RelationKind::MaterializedView,
            b'c' => RelationKind::CompositeType,
            b'f' => RelationKind::ForeignTable,
            b'p' => RelationKind::PartitionedTable,
            b'I' => RelationKind::PartitionedIndex,
            _ => RelationKind::Other,
        }
    }
}

impl fmt::Display for RelationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RelationKind::Table => "table",
            RelationKind::Index => "index",
            RelationKind::Sequence => "sequence",
            RelationKind::Toast => "TOAST table",
            RelationKind::View => "view",
            RelationKind::MaterializedView => "materialized view",
            RelationKind::CompositeType => "composite type",
            RelationKind::ForeignTable => "foreign table",
            RelationKind::PartitionedTable => "partitioned table",
            RelationKind::PartitionedIndex => "partitioned index",
            RelationKind::Other => "relation",
        })
    }
}

/// A row of `pg_class`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RelationRow {
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) schema: u32,
    /// 0: mapped, or no file at all.
    pub(super) file: u32,
    /// 0: the database's own.
    pub(super) tablespace: u32,
    /// 0: none.
    pub(super) toast: u32,
    pub(super) kind: RelationKind,
    pub(super) temporary: bool,
}

impl RelationRow {
    /// From the row's columns.
    pub(super) fn read(data: &[u8], major: PostgresMajor) -> Option<Self> {
        // 18 put relallfrozen before reltoastrelid.
        let later = if major.0 >= 18 { 4 } else { 0 };
        Some(RelationRow {
            oid: oid(data)?,
            name: name(data)?,
            schema: u32_at(data, 68)?,
            file: u32_at(data, 88)?,
            tablespace: u32_at(data, 92)?,
            toast: u32_at(data, 108 + later)?,
            temporary: *data.get(114 + later)? == b't',
            kind: RelationKind::from_byte(*data.get(115 + later)?),
        })
    }
}

/// The oid of a row of any of the three.
pub(super) fn oid(data: &[u8]) -> Option<u32> {
    u32_at(data, 0).filter(|oid| *oid != 0)
}

/// The name in a row of any of the three. Names are in the encoding of their database; what is not UTF-8 is replaced.
pub(super) fn name(data: &[u8]) -> Option<String> {
    let bytes = data.get(4..4 + NAME_SIZE)?;
    let length = bytes.iter().position(|byte| *byte == 0).filter(|length| *length > 0)?;
    Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

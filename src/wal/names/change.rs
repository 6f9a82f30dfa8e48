//! What is told about names: of relations, and what a commit changes in the catalog.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::RelationFile;
use super::RelationKind;

/// A relation, named.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RelationName {
    /// Oid of its database; 0 for a relation that all databases share.
    pub database_oid: u32,
    /// Its database's name, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Its schema's name.
    pub schema: String,
    /// Its own name.
    pub name: String,
    /// Its oid, which stays the same when its file is exchanged.
    pub oid: u32,
    /// What it is.
    pub kind: RelationKind,
    /// It belongs to one session, and its rows are not in the WAL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub temporary: bool,
    /// Its file, if it has one that `pg_class` tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<RelationFile>,
    /// The table whose long values it holds, for a TOAST table whose owner is known: schema and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toast_of: Option<(String, String)>,
}

impl RelationName {
    /// It is one of PostgreSQL's own, or what is too long for the rows of another table.
    #[must_use]
    pub fn is_of_catalog(&self) -> bool {
        matches!(self.schema.as_str(), "pg_catalog" | "pg_toast" | "information_schema")
    }

    /// With its database in front, if it is of one: `shop.public.orders`.
    #[must_use]
    pub fn qualified(&self) -> String {
        self.database.as_ref().map_or_else(|| self.to_string(), |database| format!("{}.{self}", quoted(database)))
    }
}

/// `schema.name`, quoted where SQL wants quotes; a TOAST table by its owner, as `toast of public.orders`.
impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.toast_of {
            Some((schema, name)) => write!(f, "toast of {}.{}", quoted(schema), quoted(name)),
            None => write!(f, "{}.{}", quoted(&self.schema), quoted(&self.name)),
        }
    }
}

/// As SQL wants an identifier. Reserved words are left as they are: this is read by people.
fn quoted(identifier: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    let later = |c: char| plain(c) || c.is_ascii_digit() || c == '$';
    let begins = identifier.chars().next().is_some_and(plain);
    if begins && identifier.chars().all(later) {
        identifier.to_owned()
    } else {
        format!("\"{}\"", identifier.replace('"', "\"\""))
    }
}

/// What a commit changes in the catalog.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CatalogChanges {
    /// The changes, relations before schemas before databases.
    pub changes: Vec<CatalogChange>,
    /// Names of the relation files that the commit (or abort) removes, as they were just before; those without a name are left out.
    pub removed_files: Vec<(RelationFile, RelationName)>,
}

/// One change of the catalog, committed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogChange {
    /// A relation came to be.
    RelationCreated(RelationName),
    /// A relation is gone.
    RelationDropped(RelationName),
    /// A relation has another name, or is in another schema.
    RelationRenamed {
        /// As it was.
        before: RelationName,
        /// As it is.
        after: RelationName,
    },
    /// A relation has another file: TRUNCATE, VACUUM FULL, CLUSTER, REINDEX, another tablespace, or a command of ALTER TABLE that
    /// writes all rows anew.
    RelationRewritten {
        /// With its old file.
        before: RelationName,
        /// With its new file.
        after: RelationName,
    },
    /// A schema came to be.
    SchemaCreated(SchemaName),
    /// A schema is gone.
    SchemaDropped(SchemaName),
    /// A schema, and so everything in it, has another name.
    SchemaRenamed {
        /// As it was.
        before: SchemaName,
        /// As it is.
        after: SchemaName,
    },
    /// A database came to be.
    DatabaseCreated(DatabaseName),
    /// A database is gone.
    DatabaseDropped(DatabaseName),
    /// A database has another name.
    DatabaseRenamed {
        /// As it was.
        before: DatabaseName,
        /// As it is.
        after: DatabaseName,
    },
}

/// A schema, named.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SchemaName {
    /// Oid of its database.
    pub database_oid: u32,
    /// Its database's name, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
}

/// A database, named.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DatabaseName {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
}

/// Why names are missing, and numbers are shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NamesNote {
    /// There is no base backup to begin with: names are those that the WAL itself tells.
    NoBackup,
    /// WAL is missing; what was known before it counts no more.
    Gap,
    /// The catalogs of a database could not be read in the base backup.
    NotInBackup {
        /// Oid of the database; 0 for the list of databases itself.
        database: u32,
        /// What is missing or cannot be read.
        what: &'static str,
    },
    /// A record about a catalog was not kept whole, or is of a form that is not known.
    RecordNotRead {
        /// Oid of the database; 0 for the list of databases itself.
        database: u32,
    },
    /// A catalog was rewritten, and not all of the new file was seen.
    RewriteNotSeen {
        /// Oid of the database; 0 for the list of databases itself.
        database: u32,
    },
    /// A page of a catalog has rows of transactions whose end is not known.
    UnknownEnd {
        /// Oid of the database; 0 for the list of databases itself.
        database: u32,
    },
    /// A commit record was too long to be kept whole.
    CommitCut,
    /// A database was made by copying files that were not known.
    UnknownTemplate {
        /// Oid of the new database.
        database: u32,
    },
}

impl NamesNote {
    /// Oid of the database that it is about, if it is about one.
    #[must_use]
    pub fn database(&self) -> Option<u32> {
        match self {
            NamesNote::NoBackup | NamesNote::Gap | NamesNote::CommitCut => None,
            NamesNote::NotInBackup { database, .. }
            | NamesNote::RecordNotRead { database }
            | NamesNote::RewriteNotSeen { database }
            | NamesNote::UnknownEnd { database }
            | NamesNote::UnknownTemplate { database } => Some(*database).filter(|oid| *oid != 0),
        }
    }
}

impl fmt::Display for NamesNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |database: &u32| match database {
            0 => "the list of databases".to_owned(),
            oid => format!("the catalog of database {oid}"),
        };
        match self {
            NamesNote::NoBackup => f.write_str(
                "no base backup from before: only relations that the WAL itself names since then have names, others have numbers",
            ),
            NamesNote::Gap => f.write_str("WAL is missing: relations have numbers after it until the WAL names them again"),
            NamesNote::NotInBackup { database, what } => {
                write!(f, "{what} of {} cannot be read in the base backup", place(database))
            }
            NamesNote::RecordNotRead { database } => {
                write!(f, "a change of {} was too long or too strange to be read", place(database))
            }
            NamesNote::RewriteNotSeen { database } => {
                write!(f, "{} was rewritten, and not all of it was seen", place(database))
            }
            NamesNote::UnknownEnd { database } => {
                write!(f, "{} has rows of transactions whose end is not known", place(database))
            }
            NamesNote::CommitCut => f.write_str("a commit has too many subtransactions to be read"),
            NamesNote::UnknownTemplate { database } => {
                write!(f, "database {database} was copied from one whose catalog is not known")
            }
        }
    }
}

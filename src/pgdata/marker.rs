//! `pitr.restore`: the file that marks a data directory as being restored.
//!
//! It is written before anything is removed or written, and goes last. Where it is found, the directory is ours and can be
//! written again; the server cannot start there, since `global/pg_control` is removed right after it came and is written
//! right before it goes.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::{self, Owner};
use crate::wal::SystemIdentifier;

/// The marker's name in the data directory.
pub const MARKER: &str = "pitr.restore";

/// What the marker says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Marker {
    /// The cluster whose backup is being restored.
    pub system_identifier: SystemIdentifier,
    /// The backup.
    pub backup: String,
    /// Directories outside the data directory that belong to the restore: tablespaces and WAL.
    pub outside: Vec<PathBuf>,
}

impl Marker {
    /// Reads the marker of a data directory; `None` if there is none. One that cannot be understood says that a restore was
    /// under way, of nothing in particular.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(data: &Path) -> io::Result<Option<Marker>> {
        match std::fs::read(data.join(MARKER)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).unwrap_or(Marker {
                system_identifier: SystemIdentifier(0),
                backup: String::new(),
                outside: Vec::new(),
            }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the marker; durable when this returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, data: &Path, owner: Option<Owner>) -> io::Result<()> {
        durable::replace(data, MARKER, &serde_json::to_vec_pretty(self)?, owner)
    }

    /// Removes the marker; durable when this returns.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(data: &Path) -> io::Result<()> {
        durable::remove(&data.join(MARKER))
    }
}

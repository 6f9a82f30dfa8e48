//! Segments of which only a damaged copy was archived, and whether their server may still have them whole.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::codec::Origin;
use crate::command::host;
use crate::recovery::{Snapshot, StoredDamage};
use crate::repository::wal::WalObjectName;
use crate::repository::{RepositoryError, ServerRepository};

/// A segment of which only a damaged copy was archived.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DamagedSegment {
    /// What is wrong with it.
    #[serde(flatten)]
    pub damage: StoredDamage,
    /// Who archived the damaged copy.
    pub archived_by: Origin,
    /// What the `pg_wal` that it came from holds now.
    pub in_pg_wal: InPgWal,
}

/// What `pg_wal` holds under a damaged segment's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InPgWal {
    /// It lies on another host: PostgreSQL keeps the file until checkpoints recycle it.
    Unknown,
    /// No such file any more.
    Gone,
    /// The same damaged bytes.
    Damaged,
    /// Other bytes than those that were archived: the copy was damaged on its way.
    Differs,
}

/// Looks for what is damaged. They are few: each costs a small read, and one of the file in `pg_wal` on this host.
pub(super) fn look(server: &ServerRepository, snapshot: &Snapshot) -> Result<Vec<DamagedSegment>, RepositoryError> {
    let all = snapshot.timelines.values().flat_map(|record| record.damaged.values());
    all.map(|damage| {
        let object = format!("{}.damaged.{}", damage.segment, damage.hash);
        let (archived_by, raw_crc) = match object.parse::<WalObjectName>() {
            Ok(name) => {
                let described = server.describe(name)?;
                (described.details.archived_by, described.footer.raw_crc)
            }
            Err(_) => (Origin::default(), 0),
        };
        let in_pg_wal = look_into(&archived_by, &pg_wal(&archived_by, damage), raw_crc);
        Ok(DamagedSegment { damage: damage.clone(), archived_by, in_pg_wal })
    })
    .collect()
}

fn pg_wal(origin: &Origin, damage: &StoredDamage) -> PathBuf {
    Path::new(&origin.source).join("pg_wal").join(damage.segment.to_string())
}

fn look_into(origin: &Origin, path: &Path, raw_crc: u32) -> InPgWal {
    if origin.host != host::host_name() || !path.is_absolute() {
        return InPgWal::Unknown;
    }
    match host::file_checksum(path) {
        Ok(found) if found == raw_crc => InPgWal::Damaged,
        Ok(_) => InPgWal::Differs,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => InPgWal::Gone,
        Err(_) => InPgWal::Unknown,
    }
}

impl fmt::Display for DamagedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StoredDamage { segment, good_until, why, or_before, archived_at, .. } = &self.damage;
        write!(f, "WAL SEGMENT {segment} IS DAMAGED: at {good_until}, {why}. ")?;
        if let Some(before) = or_before {
            write!(f, "The record over the border of {before} and it does not hold: either may be the bad one. ")?;
        }
        write!(
            f,
            "WAL is good up to {good_until}; backups taken before cannot be restored beyond the segment before it. It came at \
             {archived_at} from {}. ",
            self.archived_by
        )?;
        let path = pg_wal(&self.archived_by, &self.damage);
        let path = path.display();
        match self.in_pg_wal {
            InPgWal::Differs => {
                write!(f, "{path} HOLDS OTHER BYTES now: archive them with \"pitr-wal-push {path}\". ")?;
            }
            InPgWal::Damaged => write!(f, "{path} holds the same damaged bytes. ")?,
            InPgWal::Gone => write!(f, "{path} is gone. ")?,
            InPgWal::Unknown => write!(f, "{path} there may still be whole, until checkpoints recycle it. ")?,
        }
        write!(
            f,
            "Compare with a standby's pg_wal, and archive a good copy with pitr-wal-push: it takes the damaged one's place. Take a \
             base backup now with \"pitr backup\""
        )
    }
}

//! `RecoveryTarget`: what the user asks for, as PostgreSQL understands it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::moment::{self, MomentError, Surroundings};
use crate::wal::{Lsn, NameError, PgTime, Xid};

/// The longest name of a restore point in bytes: `MAXFNAMELEN` less the closing NUL.
const RESTORE_POINT_NAME_MAX_BYTES: usize = 63;

/// The moment to which a cluster is brought back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecoveryTarget {
    /// What is asked for.
    #[serde(flatten)]
    pub kind: TargetKind,
    /// Whether what happened exactly at the target is part of the result (`recovery_target_inclusive`).
    ///
    /// PostgreSQL heeds it for a time, an LSN and an xid; it is always true for the other kinds.
    pub inclusive: bool,
}

/// The six kinds of target; one PostgreSQL setting for each, and none for [`TargetKind::Latest`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum TargetKind {
    /// Commits and aborts up to this time (`recovery_target_time`). Only these records are looked at.
    Time(PgTime),
    /// Up to the first record that starts at or after this LSN (`recovery_target_lsn`).
    Lsn(Lsn),
    /// Up to the commit or abort of this transaction (`recovery_target_xid`).
    Xid(Xid),
    /// Up to the first restore point of this name (`recovery_target_name`).
    Name(String),
    /// As soon as the base backup is consistent (`recovery_target = 'immediate'`).
    Immediate,
    /// To the end of the WAL.
    Latest,
}

/// A target that cannot be meant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TargetError {
    /// The time cannot be read, or not in one way only.
    #[error(transparent)]
    Moment(#[from] MomentError),
    /// The LSN cannot be read.
    #[error(transparent)]
    Lsn(#[from] NameError),
    /// Not a transaction id.
    #[error("\"{0}\" is not the id of a transaction that writes (a decimal number from 3 on)")]
    Xid(String),
    /// Empty, or longer than PostgreSQL stores.
    #[error("\"{0}\" cannot be the name of a restore point: it has 1 to {RESTORE_POINT_NAME_MAX_BYTES} bytes")]
    Name(String),
    /// `--exclusive` with a kind for which PostgreSQL knows no such thing.
    #[error("a target of the kind \"{0}\" cannot be exclusive")]
    Exclusive(&'static str),
}

impl RecoveryTarget {
    /// A target of this kind that includes what happened exactly at it.
    #[must_use]
    pub fn inclusive(kind: TargetKind) -> Self {
        RecoveryTarget { kind, inclusive: true }
    }

    /// A target of this kind that leaves out what happened exactly at it.
    ///
    /// # Errors
    /// Restore points, `immediate` and `latest`: PostgreSQL heeds the setting for times, LSNs and xids only.
    pub fn exclusive(kind: TargetKind) -> Result<Self, TargetError> {
        match kind {
            TargetKind::Time(_) | TargetKind::Lsn(_) | TargetKind::Xid(_) => {
                Ok(RecoveryTarget { kind, inclusive: false })
            }
            TargetKind::Name(_) | TargetKind::Immediate | TargetKind::Latest => {
                Err(TargetError::Exclusive(kind.word()))
            }
        }
    }

    /// Whether a commit or abort at `time` lies past this target; `None` if the target is not a time.
    ///
    /// `recoveryStopsBefore`: past means later, or also equal where the target is exclusive.
    #[must_use]
    pub fn is_past(&self, time: PgTime) -> Option<bool> {
        match self.kind {
            TargetKind::Time(target) if self.inclusive => Some(time > target),
            TargetKind::Time(target) => Some(time >= target),
            _ => None,
        }
    }
}

impl TargetKind {
    /// Reads what stands after `--to`: `latest`, `immediate`, or a time in any form of [`moment::parse`].
    ///
    /// # Errors
    /// A time that cannot be read, or not in one way only.
    pub fn parse_to(text: &str, surroundings: &Surroundings<'_>) -> Result<Self, TargetError> {
        match text.trim() {
            "latest" => Ok(TargetKind::Latest),
            "immediate" => Ok(TargetKind::Immediate),
            time => Ok(TargetKind::Time(moment::parse(time, surroundings)?)),
        }
    }

    /// Reads an LSN such as `16/B374D848`.
    ///
    /// # Errors
    /// Another form, or `0/0`, which is no position.
    pub fn parse_lsn(text: &str) -> Result<Self, TargetError> {
        let lsn: Lsn = text.trim().parse()?;
        if lsn == Lsn::INVALID {
            return Err(NameError::Lsn(text.to_owned()).into());
        }
        Ok(TargetKind::Lsn(lsn))
    }

    /// Reads a transaction id. `pg_current_xact_id()` gives 64 bits; WAL and `recovery_target_xid` know the lower 32.
    ///
    /// # Errors
    /// Another form, or one of the three ids that PostgreSQL keeps for itself.
    pub fn parse_xid(text: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError::Xid(text.to_owned());
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number: u64 = if digits { text.parse().map_err(|_| wrong())? } else { return Err(wrong()) };
        match u32::try_from(number & 0xFFFF_FFFF) {
            Ok(xid) if xid >= 3 => Ok(TargetKind::Xid(Xid(xid))),
            _ => Err(wrong()),
        }
    }

    /// Takes the name of a restore point.
    ///
    /// # Errors
    /// A name that `pg_create_restore_point` would not have taken.
    pub fn parse_name(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() || text.len() > RESTORE_POINT_NAME_MAX_BYTES || text.contains('\0') {
            return Err(TargetError::Name(text.to_owned()));
        }
        Ok(TargetKind::Name(text.to_owned()))
    }

    /// The kind in one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            TargetKind::Time(_) => "time",
            TargetKind::Lsn(_) => "LSN",
            TargetKind::Xid(_) => "xid",
            TargetKind::Name(_) => "name",
            TargetKind::Immediate => "immediate",
            TargetKind::Latest => "latest",
        }
    }
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            TargetKind::Time(time) => write!(f, "time {time}")?,
            TargetKind::Lsn(lsn) => write!(f, "LSN {lsn}")?,
            TargetKind::Xid(xid) => write!(f, "transaction {xid}")?,
            TargetKind::Name(name) => write!(f, "restore point \"{name}\"")?,
            TargetKind::Immediate => f.write_str("the first consistent moment of the backup")?,
            TargetKind::Latest => f.write_str("the end of the WAL")?,
        }
        f.write_str(if self.inclusive { "" } else { " (exclusive)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An xid of 64 bits, as SQL shows it, becomes the 32 bits that WAL carries; reserved ids are refused.
    #[test]
    fn xids() {
        assert_eq!(TargetKind::parse_xid("731"), Ok(TargetKind::Xid(Xid(731))));
        assert_eq!(TargetKind::parse_xid("4294968027"), Ok(TargetKind::Xid(Xid(731))));
        for wrong in ["", "0", "2", "4294967296", "-5", "0x10", "99999999999999999999", "12 "] {
            assert!(TargetKind::parse_xid(wrong).is_err(), "{wrong:?}");
        }
    }

    /// A name that no restore point can have is refused before anything is searched for it.
    #[test]
    fn names() {
        assert!(TargetKind::parse_name(&"x".repeat(63)).is_ok());
        assert!(TargetKind::parse_name(&"x".repeat(64)).is_err());
        assert!(TargetKind::parse_name("").is_err());
    }

    /// `--exclusive` is refused where PostgreSQL would ignore it: the result would not be what was asked for.
    #[test]
    fn exclusive() {
        assert!(RecoveryTarget::exclusive(TargetKind::Latest).is_err());
        assert!(RecoveryTarget::exclusive(TargetKind::Name("a".into())).is_err());
        let target = RecoveryTarget::exclusive(TargetKind::Time(PgTime(5))).expect("times can be exclusive");
        assert_eq!((target.is_past(PgTime(4)), target.is_past(PgTime(5))), (Some(false), Some(true)));
        let target = RecoveryTarget::inclusive(TargetKind::Time(PgTime(5)));
        assert_eq!((target.is_past(PgTime(5)), target.is_past(PgTime(6))), (Some(false), Some(true)));
    }
}

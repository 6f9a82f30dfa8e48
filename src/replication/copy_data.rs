//! What is inside `CopyData`: the messages of `BASE_BACKUP` (15 and later) and of `START_REPLICATION`. Pure: bytes in,
//! values out, and the one message that goes the other way.
//!
//! `BASE_BACKUP` (manual, "Streaming Replication Protocol"; `basebackup_copy.c`), by the first byte:
//!
//! | byte | then |
//! |---|---|
//! | `n` | archive name and tablespace path, each ended by a zero byte |
//! | `m` | nothing: the manifest begins |
//! | `d` | bytes of the archive or manifest that began last |
//! | `p` | 8 bytes: bytes done so far |
//!
//! `START_REPLICATION`, numbers big-endian (`walsender.c`), times in µs since 2000-01-01:
//!
//! | byte | then |
//! |---|---|
//! | `w` | start LSN (8), end of WAL on the server (8), server's time (8), WAL |
//! | `k` | end of WAL on the server (8), server's time (8), 1 if an answer is wanted at once (1) |
//! | `r` (from us) | written LSN (8), flushed LSN (8), applied LSN (8), our time (8), 1 if an answer is wanted (1) |

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::wal::{Lsn, PgTime};

/// Bytes that are none of the messages allowed here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct CopyDataError(String);

/// One message of a base backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackupCopyData {
    /// An archive begins.
    Archive {
        /// `base.tar` or `<oid>.tar`.
        name: String,
        /// Where the tablespace lies; empty for the main one.
        location: String,
    },
    /// The manifest begins.
    Manifest,
    /// Bytes of what began last.
    Data(Bytes),
    /// Bytes done so far, of all tablespaces together.
    Progress(u64),
}

/// Reads one `CopyData` body of a base backup from PostgreSQL 15 or later.
///
/// # Errors
/// Unknown messages, and known ones that are too short or too long.
pub fn parse_backup(mut body: Bytes) -> Result<BackupCopyData, CopyDataError> {
    if body.is_empty() {
        return Err(CopyDataError("an empty message".to_owned()));
    }
    let parsed = match body.get_u8() {
        b'd' => return Ok(BackupCopyData::Data(body)),
        b'n' => BackupCopyData::Archive { name: text(&mut body)?, location: text(&mut body)? },
        b'm' => BackupCopyData::Manifest,
        b'p' => {
            let done = body.try_get_i64().map_err(|_| too_short())?;
            BackupCopyData::Progress(u64::try_from(done).unwrap_or(0))
        }
        other => return Err(unknown(other)),
    };
    all_read(&body)?;
    Ok(parsed)
}

/// One message of a WAL stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WalCopyData {
    /// WAL.
    Wal {
        /// Where it begins.
        start: Lsn,
        /// How far the server's WAL reaches.
        end: Lsn,
        /// The server's clock.
        sent_at: PgTime,
        /// The WAL itself; never cuts a page of the server's in half, may begin and end within a record.
        bytes: Bytes,
    },
    /// A sign of life.
    Keepalive {
        /// How far the server's WAL reaches.
        end: Lsn,
        /// The server's clock.
        sent_at: PgTime,
        /// Whether the server will give us up unless we answer.
        answer: bool,
    },
}

/// Reads one `CopyData` body of a WAL stream.
///
/// # Errors
/// Unknown messages, and known ones that are too short or too long.
pub fn parse_wal(mut body: Bytes) -> Result<WalCopyData, CopyDataError> {
    if body.is_empty() {
        return Err(CopyDataError("an empty message".to_owned()));
    }
    let tag = body.get_u8();
    let number = |body: &mut Bytes| body.try_get_u64().map_err(|_| too_short());
    let time = |body: &mut Bytes| body.try_get_i64().map(PgTime).map_err(|_| too_short());
    match tag {
        b'w' => {
            let (start, end, sent_at) = (Lsn(number(&mut body)?), Lsn(number(&mut body)?), time(&mut body)?);
            match start.checked_add(body.len() as u64) {
                Some(_) => Ok(WalCopyData::Wal { start, end, sent_at, bytes: body }),
                None => Err(CopyDataError(format!("{} bytes of WAL at {start}", body.len()))),
            }
        }
        b'k' => {
            let (end, sent_at) = (Lsn(number(&mut body)?), time(&mut body)?);
            let answer = body.try_get_u8().map_err(|_| too_short())? != 0;
            all_read(&body)?;
            Ok(WalCopyData::Keepalive { end, sent_at, answer })
        }
        other => Err(unknown(other)),
    }
}

/// Writes a standby status update, as a body of `CopyData`. What we have not flushed we do not claim to have written:
/// the server then keeps it, and its slot does.
#[must_use]
pub fn status_update(flushed: Lsn, now: PgTime, answer: bool) -> Bytes {
    let mut body = BytesMut::with_capacity(34);
    body.put_u8(b'r');
    body.put_u64(flushed.0);
    body.put_u64(flushed.0);
    // Nothing is applied here; 0 says so.
    body.put_u64(0);
    body.put_i64(now.0);
    body.put_u8(u8::from(answer));
    body.freeze()
}

fn too_short() -> CopyDataError {
    CopyDataError("a message that is too short".to_owned())
}

fn unknown(tag: u8) -> CopyDataError {
    CopyDataError(format!("a message of the unknown kind '{}'", tag.escape_ascii()))
}

fn all_read(body: &Bytes) -> Result<(), CopyDataError> {
    match body.len() {
        0 => Ok(()),
        more => Err(CopyDataError(format!("a message that is {more} bytes too long"))),
    }
}

fn text(body: &mut Bytes) -> Result<String, CopyDataError> {
    let length = body.iter().position(|byte| *byte == 0).ok_or_else(too_short)?;
    let bytes = body.split_to(length);
    body.advance(1);
    String::from_utf8(bytes.to_vec()).map_err(|_| CopyDataError("a name that is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each message of a base backup is understood, and nothing shorter, longer or unknown passes for one.
    #[test]
    fn backup_messages() {
        let parse = |bytes: &'static [u8]| parse_backup(Bytes::from_static(bytes));
        let archive =
            |name: &str, location: &str| BackupCopyData::Archive { name: name.into(), location: location.into() };
        assert_eq!(parse(b"nbase.tar\0\0"), Ok(archive("base.tar", "")));
        assert_eq!(parse(b"n16384.tar\0/ts\0"), Ok(archive("16384.tar", "/ts")));
        assert_eq!(parse(b"m"), Ok(BackupCopyData::Manifest));
        assert_eq!(parse(b"dabc"), Ok(BackupCopyData::Data(Bytes::from_static(b"abc"))));
        assert_eq!(parse(b"p\0\0\0\0\0\0\x01\0"), Ok(BackupCopyData::Progress(256)));
        for wrong in [
            &b""[..],
            b"n",
            b"nbase.tar\0",
            b"nbase.tar\0\0x",
            b"mx",
            b"p\0",
            b"p\0\0\0\0\0\0\x01\0\0",
            b"x",
            b"n\xff\0\0",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Messages of a WAL stream, whole and cut at every place.
    #[test]
    fn wal_messages() {
        let mut wal = vec![b'w'];
        wal.extend(0x16_0000_0000u64.to_be_bytes());
        wal.extend(0x16_0000_0003u64.to_be_bytes());
        wal.extend(7i64.to_be_bytes());
        wal.extend(b"abc");
        let bytes = Bytes::from_static(b"abc");
        let expected =
            WalCopyData::Wal { start: Lsn(0x16_0000_0000), end: Lsn(0x16_0000_0003), sent_at: PgTime(7), bytes };
        assert_eq!(parse_wal(wal.clone().into()), Ok(expected));
        assert!((0..25).all(|length| parse_wal(wal[..length].to_vec().into()).is_err()));
        let mut keepalive = vec![b'k'];
        keepalive.extend(1u64.to_be_bytes());
        keepalive.extend(2i64.to_be_bytes());
        keepalive.push(1);
        let expected = WalCopyData::Keepalive { end: Lsn(1), sent_at: PgTime(2), answer: true };
        assert_eq!(parse_wal(keepalive.clone().into()), Ok(expected));
        assert!((0..18).all(|length| parse_wal(keepalive[..length].to_vec().into()).is_err()));
        wal[1..9].fill(0xFF);
        assert!(parse_wal(wal.into()).is_err(), "WAL past the end of the address space");
    }

    /// The answer to the server has the layout of `ProcessStandbyReplyMessage`.
    #[test]
    fn answer() {
        let body = status_update(Lsn(0x0102), PgTime(3), true);
        assert_eq!(body.len(), 34);
        assert_eq!(&body[..17], b"r\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\x01\x02");
        assert_eq!((&body[17..33], body[33]), (&b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03"[..], 1));
    }
}

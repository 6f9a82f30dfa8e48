//! Reading objects: whole, in ranges, and as streams that survive a broken connection.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf, Bytes};

use super::error::Failure;
use super::{Bucket, options, pause_before};
use crate::storage::{Key, StorageErrorKind, Suffix};

/// Tries without a single new byte after which a stream gives up.
const FRUITLESS_TRIES: u32 = 5;

impl Bucket {
    /// Begins to read an object, or the part that `range` (a header's value) names. With `etag` only if it is still the same.
    fn get(&self, key: &Key, range: Option<String>, etag: Option<String>) -> Result<GetObjectOutput, Failure> {
        let engine = self.engine()?;
        let request = engine.client.get_object().bucket(&self.settings.bucket).key(self.path(key));
        let request = request.set_range(range).set_if_match(etag);
        let request = options::with_key!(options::payer!(request, self.settings), self.settings);
        engine.wait(request.send()).map_err(|error| Failure::of(&error))
    }

    /// What is known about an object without its content; `None` if it is certainly not there.
    ///
    /// An answer to HEAD has no body, so a missing object and a missing bucket look the same: then a read of one byte, which
    /// needs no other right, tells which.
    pub(super) fn head(&self, key: &Key) -> Result<Option<HeadObjectOutput>, Failure> {
        let engine = self.engine()?;
        let request = engine.client.head_object().bucket(&self.settings.bucket).key(self.path(key));
        let request = options::with_key!(options::payer!(request, self.settings), self.settings);
        match engine.wait(request.send()).map_err(|error| Failure::of(&error)) {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is_vague_absence() => match self.first_byte(key) {
                Ok(_) => Err(Failure::new(StorageErrorKind::Unreachable, "it appeared while it was looked for")),
                Err(failure) if failure.kind == StorageErrorKind::NotFound => Ok(None),
                Err(failure) => Err(failure),
            },
            Err(failure) if failure.kind == StorageErrorKind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Size in bytes, or `None` if the object is certainly not there.
    pub(super) fn size(&self, key: &Key) -> Result<Option<u64>, Failure> {
        let found = self.head(key)?;
        found.map(|found| length(found.content_length)).transpose()
    }

    /// The size of an object, by a request whose refusal says what is missing.
    pub(super) fn first_byte(&self, key: &Key) -> Result<u64, Failure> {
        match self.get(key, Some("bytes=0-0".to_owned()), None) {
            Ok(found) => total(&found),
            Err(failure) if failure.is_range() => Ok(0),
            Err(failure) => Err(failure),
        }
    }

    /// A range that lies wholly inside the object.
    pub(super) fn range(self: &Arc<Self>, key: &Key, range: Range<u64>) -> Result<Vec<u8>, Failure> {
        let too_short = |size: Option<u64>| {
            let has = size.map_or_else(|| "is shorter".to_owned(), |size| format!("has {size} bytes"));
            let reason = format!("it {has}, and bytes {} to {} were wanted", range.start, range.end);
            Failure::new(StorageErrorKind::TooShort, reason)
        };
        if range.start >= range.end {
            // Nothing to read, but the object must be there and reach that far.
            let size = self.size(key)?.ok_or_else(Failure::not_found)?;
            return if range.start == range.end && range.end <= size {
                Ok(Vec::new())
            } else {
                Err(too_short(Some(size)))
            };
        }
        let found = match self.get(key, Some(format!("bytes={}-{}", range.start, range.end - 1)), None) {
            Err(failure) if failure.is_range() => return Err(too_short(None)),
            other => other?,
        };
        let (part, size) = (part(&found)?, total(&found)?);
        if size < range.end {
            return Err(too_short(Some(size)));
        }
        if part.start > range.start || part.end < range.end {
            return Err(Failure::new(
                StorageErrorKind::Unreachable,
                "the server sent another range than was asked for",
            ));
        }
        let mut reader = Reader::new(Arc::clone(self), key.clone(), found, part.clone());
        let skipped = usize::try_from(range.start - part.start).unwrap_or(usize::MAX);
        let mut bytes = reader.collect()?;
        bytes.drain(..skipped.min(bytes.len()));
        bytes.truncate(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    /// The last bytes of an object.
    pub(super) fn suffix(self: &Arc<Self>, key: &Key, bytes: u64) -> Result<Suffix, Failure> {
        if bytes == 0 {
            let size = self.size(key)?.ok_or_else(Failure::not_found)?;
            return Ok(Suffix { bytes: Vec::new(), size });
        }
        let found = match self.get(key, Some(format!("bytes=-{bytes}")), None) {
            // An object without bytes has no last ones, says S3.
            Err(failure) if failure.is_range() => return Ok(Suffix { bytes: Vec::new(), size: 0 }),
            other => other?,
        };
        let (part, size) = (part(&found)?, total(&found)?);
        if part.end != size || part.start > size.saturating_sub(bytes) {
            return Err(Failure::new(
                StorageErrorKind::Unreachable,
                "the server sent another range than was asked for",
            ));
        }
        let mut all = Reader::new(Arc::clone(self), key.clone(), found, part).collect()?;
        let surplus = all.len().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
        all.drain(..surplus);
        Ok(Suffix { bytes: all, size })
    }

    /// A whole object as a stream.
    pub(super) fn stream(self: &Arc<Self>, key: &Key) -> Result<Reader, Failure> {
        let found = self.get(key, None, None)?;
        let part = part(&found)?;
        Ok(Reader::new(Arc::clone(self), key.clone(), found, part))
    }
}

/// Which bytes of the object an answer carries: all of them, unless it says otherwise.
fn part(found: &GetObjectOutput) -> Result<Range<u64>, Failure> {
    match content_range(found) {
        Some((part, _)) => Ok(part),
        None => Ok(0..length(found.content_length)?),
    }
}

/// A length that was said. One that was not must never be taken for nothing: the object would seem to be empty.
fn length(said: Option<i64>) -> Result<u64, Failure> {
    let length = said.and_then(|length| u64::try_from(length).ok());
    length.ok_or_else(|| Failure::new(StorageErrorKind::Unreachable, "the server did not say how long the object is"))
}

/// Size of the whole object.
fn total(found: &GetObjectOutput) -> Result<u64, Failure> {
    match content_range(found) {
        Some((_, total)) => Ok(total),
        None => Ok(part(found)?.end),
    }
}

/// `Content-Range: bytes 0-9/100` as the range and the size of the whole.
fn content_range(found: &GetObjectOutput) -> Option<(Range<u64>, u64)> {
    parse_content_range(found.content_range.as_deref()?)
}

fn parse_content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total.parse().ok()?);
    (first <= last && last < total).then_some((first..last + 1, total))
}

/// An object, or a part of it, as it arrives. A broken connection is taken up again where it broke; if the object is
/// another one by then, reading fails.
pub(super) struct Reader {
    bucket: Arc<Bucket>,
    key: Key,
    etag: Option<String>,
    body: Option<ByteStream>,
    arrived: Bytes,
    /// What is still to arrive.
    ahead: Range<u64>,
    /// Tries since the last byte.
    fruitless: u32,
}

impl Reader {
    fn new(bucket: Arc<Bucket>, key: Key, found: GetObjectOutput, ahead: Range<u64>) -> Reader {
        let (etag, body) = (found.e_tag, Some(found.body));
        Reader { bucket, key, etag, body, arrived: Bytes::new(), ahead, fruitless: 0 }
    }

    /// Bytes still to be read.
    pub(super) fn remaining(&self) -> u64 {
        self.arrived.len() as u64 + self.ahead.end - self.ahead.start
    }

    /// All that is left.
    pub(super) fn collect(&mut self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.remaining()).unwrap_or(0));
        while self.arrive()? {
            bytes.extend_from_slice(&self.arrived);
            self.arrived.clear();
        }
        Ok(bytes)
    }

    /// Waits for more bytes unless some are there; false at the end.
    fn arrive(&mut self) -> Result<bool, Failure> {
        while self.arrived.is_empty() && !self.ahead.is_empty() {
            match self.next_piece() {
                Ok(piece) => {
                    self.bucket.counters.received(piece.len());
                    self.bucket.download.pay(piece.len());
                    let fits =
                        usize::try_from(self.ahead.end - self.ahead.start).unwrap_or(usize::MAX).min(piece.len());
                    self.arrived = piece.slice(..fits);
                    self.ahead.start += fits as u64;
                    self.fruitless = 0;
                }
                Err(failure) => self.resume(failure)?,
            }
        }
        Ok(!self.arrived.is_empty())
    }

    fn next_piece(&mut self) -> Result<Bytes, Failure> {
        let broken = |reason: &str| Failure::new(StorageErrorKind::Unreachable, reason);
        let Some(body) = self.body.as_mut() else { return Err(broken("the connection broke")) };
        let limit = self.bucket.settings.attempt_timeout;
        let engine = self.bucket.engine()?;
        match engine.wait(async { tokio::time::timeout(limit, body.try_next()).await }) {
            Ok(Ok(Some(piece))) => Ok(piece),
            Ok(Ok(None)) => Err(broken("the answer ended early")),
            Ok(Err(error)) => Err(broken(&format!("the connection broke: {error}"))),
            Err(_) => Err(broken("no more bytes came in time")),
        }
    }

    /// Asks for the rest after a failure, a bounded number of times.
    fn resume(&mut self, failure: Failure) -> Result<(), Failure> {
        self.body = None;
        self.fruitless += 1;
        if self.fruitless > FRUITLESS_TRIES {
            return Err(failure);
        }
        std::thread::sleep(pause_before(self.fruitless, Duration::from_millis(100)));
        let range = format!("bytes={}-{}", self.ahead.start, self.ahead.end - 1);
        match self.bucket.get(&self.key, Some(range), self.etag.clone()) {
            Ok(found) if part(&found)?.start == self.ahead.start => {
                self.body = Some(found.body);
                Ok(())
            }
            Ok(_) => {
                Err(Failure::new(StorageErrorKind::Unreachable, "the server sent another range than was asked for"))
            }
            Err(failure) if failure.is_precondition() || failure.is_range() => {
                Err(Failure::new(StorageErrorKind::Unreachable, "the object was replaced while it was read"))
            }
            Err(failure) => Err(failure),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || !self.arrive().map_err(|failure| io::Error::other(failure.reason))? {
            return Ok(0);
        }
        let length = buffer.len().min(self.arrived.len());
        self.arrived.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server says about a range is believed only if it makes sense.
    #[test]
    fn content_ranges() {
        assert_eq!(parse_content_range("bytes 0-9/100"), Some((0..10, 100)));
        assert_eq!(parse_content_range("bytes 99-99/100"), Some((99..100, 100)));
        for wrong in ["", "bytes */100", "bytes 9-0/100", "bytes 0-100/100", "0-9/100", "bytes 0-9"] {
            assert_eq!(parse_content_range(wrong), None, "{wrong}");
        }
    }
}

//! Storing an object: in one request while it is small, in parts beyond that; under its name only if that is free.
//!
//! A request whose answer was lost is sent again and may then be refused because of what the first one stored. Each object
//! therefore carries a mark of its own in its metadata, by which its writer knows it again.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::counters::Tries;
use super::error::Failure;
use super::options;
use super::{Bucket, retry_conflict};
use crate::storage::{Key, NewObject, Put, StorageError, StorageErrorKind};

/// Objects up to this size take one request and this much memory; the parts of larger ones begin at it. A WAL segment of the default
/// size fits that does not compress, with its description.
const PART_BYTES: usize = 17 << 20;

/// Room for this much is asked of the allocator at once. What is larger than 32 MiB, glibc maps by itself and gives back as soon as it is
/// free (`M_MMAP_THRESHOLD`, `DEFAULT_MMAP_THRESHOLD_MAX` in mallopt(3)), and only pages that are written to take memory. Buffers that
/// grow stay behind in the allocator's own store instead, one in each thread's: 134 MiB were measured where 48 MiB were held.
const ROOM_BYTES: usize = 33 << 20;

/// S3 takes at most 10,000 parts: every 1000 parts their size doubles, up to 544 MiB, which makes 3.1 TiB.
const PARTS_PER_SIZE: usize = 1000;

/// The metadata that carries an object's mark.
const MARK: &str = "pitr-write";

/// Longest wait for telling the server that an upload was given up.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

fn part_bytes(parts_before: usize) -> usize {
    PART_BYTES << (parts_before / PARTS_PER_SIZE).min(5)
}

/// CRC-32C as S3 writes it: the server compares it with what arrived, and refuses what differs.
fn checksum(bytes: &[u8]) -> String {
    STANDARD.encode(crc32c::crc32c(bytes).to_be_bytes())
}

/// An object being written.
pub(super) struct NewS3Object {
    bucket: Arc<Bucket>,
    key: Key,
    buffer: Vec<u8>,
    upload: Option<Upload>,
}

/// An upload in parts.
#[derive(Default)]
struct Upload {
    id: String,
    mark: String,
    parts: Vec<CompletedPart>,
}

impl NewS3Object {
    pub(super) fn new(bucket: Arc<Bucket>, key: Key) -> NewS3Object {
        NewS3Object { bucket, key, buffer: Vec::new(), upload: None }
    }

    fn parts(&self) -> usize {
        self.upload.as_ref().map_or(0, |upload| upload.parts.len())
    }

    /// Sends what is buffered as the next part; the first one begins the upload.
    fn send_part(&mut self) -> Result<(), Failure> {
        if self.upload.is_none() {
            self.upload = Some(self.bucket.begin_upload(&self.key)?);
        }
        let upload = self.upload.as_mut().expect("it was begun just now");
        let number = i32::try_from(upload.parts.len() + 1).unwrap_or(i32::MAX);
        let part = self.bucket.send_part(&self.key, &upload.id, number, std::mem::take(&mut self.buffer))?;
        upload.parts.push(part);
        Ok(())
    }
}

impl Write for NewS3Object {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let limit = part_bytes(self.parts());
        if self.buffer.len() >= limit && !bytes.is_empty() {
            self.send_part().map_err(|failure| io::Error::other(failure.reason))?;
        }
        let room = part_bytes(self.parts()) - self.buffer.len();
        let taken = &bytes[..bytes.len().min(room)];
        if self.buffer.capacity() == 0 {
            // Where that much cannot be had, the buffer grows.
            let _ = self.buffer.try_reserve_exact(limit.max(ROOM_BYTES));
        }
        self.buffer.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewObject for NewS3Object {
    fn publish(mut self: Box<Self>) -> Result<Put, StorageError> {
        let (bucket, key) = (Arc::clone(&self.bucket), self.key.clone());
        if self.upload.is_none() {
            return bucket
                .put(&key, std::mem::take(&mut self.buffer))
                .map_err(|failure| bucket.dress("write", &key, failure));
        }
        let mut publish = || {
            if !self.buffer.is_empty() {
                self.send_part()?;
            }
            let upload = self.upload.as_ref().expect("it was looked at above");
            let put = bucket.complete_upload(&key, upload)?;
            if put == Put::Created {
                // Nothing is left to be given up.
                self.upload = None;
            }
            Ok(put)
        };
        publish().map_err(|failure| bucket.dress("write", &key, failure))
    }
}

impl Drop for NewS3Object {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            // One that cannot be given up now is found by the sweep later.
            self.bucket.abort_upload(&self.key, &upload.id);
        }
    }
}

impl Bucket {
    /// Stores an object in one request.
    pub(super) fn put(&self, key: &Key, bytes: Vec<u8>) -> Result<Put, Failure> {
        if !self.settings.conditional_writes && self.look_first(key)? {
            return Ok(Put::Exists);
        }
        let engine = self.engine()?;
        let (checksum, mark) = (checksum(&bytes), mark()?);
        self.upload.pay(bytes.len());
        // Shared by all tries: the bytes are in memory once.
        let bytes = bytes::Bytes::from(bytes);
        let tries = Tries::default();
        let sent = retry_conflict(self, || {
            let request = engine.client.put_object().bucket(&self.settings.bucket).key(self.path(key));
            let request = options::new_object!(request, self.settings, lock_until(&self.settings))
                .set_if_none_match(self.settings.conditional_writes.then(|| "*".to_owned()))
                .metadata(MARK, &mark)
                .checksum_crc32_c(&checksum)
                .set_content_md5(options::content_md5(&self.settings, &bytes))
                .body(ByteStream::from(bytes.clone()))
                .customize()
                .interceptor(tries.clone());
            // Over TLS the checksum is enough, and hashing the content for the signature would cost as much as sending it.
            let request = if self.settings.is_plain_http() { request } else { request.disable_payload_signing() };
            engine.wait(request.send()).map_err(|error| Failure::of(&error))
        });
        match sent {
            Ok(_) => Ok(Put::Created),
            Err(failure) if failure.is_precondition() => {
                let ours = tries.several() && self.mark_of(key)?.as_deref() == Some(&*mark);
                Ok(if ours { Put::Created } else { Put::Exists })
            }
            Err(failure) => Err(failure),
        }
    }

    fn begin_upload(&self, key: &Key) -> Result<Upload, Failure> {
        let engine = self.engine()?;
        let mark = mark()?;
        let request = engine.client.create_multipart_upload().bucket(&self.settings.bucket).key(self.path(key));
        let request = options::new_object!(request, self.settings, lock_until(&self.settings))
            .metadata(MARK, &mark)
            .checksum_algorithm(ChecksumAlgorithm::Crc32C);
        let begun = engine.wait(request.send()).map_err(|error| Failure::of(&error))?;
        let id = begun.upload_id.ok_or_else(|| {
            Failure::new(StorageErrorKind::Unreachable, "the server began an upload without giving it an id")
        })?;
        Ok(Upload { id, mark, parts: Vec::new() })
    }

    fn send_part(&self, key: &Key, upload: &str, number: i32, bytes: Vec<u8>) -> Result<CompletedPart, Failure> {
        let engine = self.engine()?;
        let checksum = checksum(&bytes);
        self.upload.pay(bytes.len());
        let request = engine
            .client
            .upload_part()
            .bucket(&self.settings.bucket)
            .key(self.path(key))
            .upload_id(upload)
            .part_number(number)
            .checksum_crc32_c(&checksum)
            .set_content_md5(options::content_md5(&self.settings, &bytes))
            .body(ByteStream::from(bytes));
        let request = options::with_key!(options::payer!(request, self.settings), self.settings).customize();
        let request = if self.settings.is_plain_http() { request } else { request.disable_payload_signing() };
        let sent = engine.wait(request.send()).map_err(|error| Failure::of(&error))?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).checksum_crc32_c(checksum).build())
    }

    fn complete_upload(&self, key: &Key, upload: &Upload) -> Result<Put, Failure> {
        if !self.settings.conditional_writes && self.look_first(key)? {
            return Ok(Put::Exists);
        }
        let engine = self.engine()?;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(upload.parts.clone())).build();
        let done = retry_conflict(self, || {
            let request = engine
                .client
                .complete_multipart_upload()
                .bucket(&self.settings.bucket)
                .key(self.path(key))
                .upload_id(&upload.id)
                .set_if_none_match(self.settings.conditional_writes.then(|| "*".to_owned()))
                .multipart_upload(parts.clone());
            let request = options::with_key!(options::payer!(request, self.settings), self.settings);
            engine.wait(request.send()).map_err(|error| Failure::of(&error))
        });
        match done {
            Ok(_) => Ok(Put::Created),
            // After a lost answer the upload is gone, and the object is ours; after somebody else's it is there and is not.
            Err(failure)
                if failure.is_precondition()
                    || failure.is_conflict()
                    || failure.code.as_deref() == Some("NoSuchUpload") =>
            {
                match self.mark_of(key)? {
                    Some(mark) if mark == upload.mark => Ok(Put::Created),
                    Some(_) => Ok(Put::Exists),
                    None => Err(failure),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    /// Gives an upload up, without waiting long and without saying whether it worked.
    pub(super) fn abort_upload(&self, key: &Key, upload: &str) {
        let Ok(engine) = self.engine() else { return };
        let request =
            engine.client.abort_multipart_upload().bucket(&self.settings.bucket).key(self.path(key)).upload_id(upload);
        let request = options::payer!(request, self.settings);
        if engine.wait(async { tokio::time::timeout(ABORT_TIMEOUT, request.send()).await }).is_err() {
            tracing::debug!("an upload for {key} was not given up in time");
        }
    }

    /// The mark of a stored object: empty if it has none, `None` if the object is not there.
    fn mark_of(&self, key: &Key) -> Result<Option<String>, Failure> {
        let found = self.head(key)?;
        Ok(found.map(|found| found.metadata.and_then(|mut all| all.remove(MARK)).unwrap_or_default()))
    }

    /// Whether the name is taken, for servers that cannot refuse a second object themselves.
    fn look_first(&self, key: &Key) -> Result<bool, Failure> {
        match self.first_byte(key) {
            Ok(_) => Ok(true),
            Err(failure) if failure.kind == StorageErrorKind::NotFound => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

fn mark() -> Result<String, Failure> {
    let mut random = [0_u8; 12];
    getrandom::fill(&mut random).map_err(|error| Failure::new(StorageErrorKind::Unreachable, error.to_string()))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random))
}

/// Until when an object that is stored now cannot be deleted.
fn lock_until(settings: &super::S3Settings) -> Option<DateTime> {
    let days = settings.object_lock?.days;
    Some(DateTime::from(SystemTime::now() + Duration::from_secs(u64::from(days) * 86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10,000 parts are enough for what a backup can hold, and small objects stay small in memory.
    #[test]
    fn part_sizes() {
        assert_eq!((part_bytes(0), part_bytes(999), part_bytes(1000)), (17 << 20, 17 << 20, 34 << 20));
        let all: u64 = (0..10_000).map(|number| part_bytes(number) as u64).sum();
        assert!(all > 2 << 40, "{all}");
        assert!(part_bytes(9_999) <= 5 << 30, "the largest part that S3 takes");
    }

    /// The checksum is the one of S3's documentation: CRC-32C, most significant byte first, in base64.
    #[test]
    fn checksums() {
        assert_eq!(checksum(b"123456789"), STANDARD.encode(0xE306_9283_u32.to_be_bytes()));
    }
}

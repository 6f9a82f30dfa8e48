//! The objects of the test server: one bucket, an ordered map, the operations that the store uses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

/// One stored object.
#[derive(Clone)]
pub struct Stored {
    pub bytes: Bytes,
    etag: String,
    metadata: Option<Metadata>,
    modified: SystemTime,
}

struct Pending {
    key: String,
    metadata: Option<Metadata>,
    begun: SystemTime,
    parts: BTreeMap<i32, Bytes>,
}

#[derive(Default)]
struct State {
    bucket: Mutex<String>,
    objects: Mutex<BTreeMap<String, Stored>>,
    uploads: Mutex<HashMap<String, Pending>>,
    counter: AtomicUsize,
    page: AtomicUsize,
    ignores_conditions: AtomicBool,
    takes_any_checksum: AtomicBool,
    locked: Mutex<BTreeSet<String>>,
}

/// The bucket's content, shared by the server and the test.
#[derive(Clone)]
pub struct Objects(Arc<State>);

impl Objects {
    pub(super) fn new(bucket: &str) -> Objects {
        let state = State { page: AtomicUsize::new(1000), ..State::default() };
        *lock(&state.bucket) = bucket.to_owned();
        Objects(Arc::new(state))
    }

    /// Overwrites although an object has the name, and never says so.
    pub fn ignore_conditions(&self) {
        self.0.ignores_conditions.store(true, Ordering::SeqCst);
    }

    /// Takes objects without the checksum that this project's client sends: others send others.
    pub fn take_any_checksum(&self) {
        self.0.takes_any_checksum.store(true, Ordering::SeqCst);
    }

    /// The bucket has another name from now on: the old one is gone.
    pub fn rename_bucket(&self, name: &str) {
        *lock(&self.0.bucket) = name.to_owned();
    }

    /// Objects on one page of a listing.
    pub fn set_page(&self, objects: usize) {
        self.0.page.store(objects, Ordering::SeqCst);
    }

    /// Names of all objects.
    pub fn names(&self) -> Vec<String> {
        lock(&self.0.objects).keys().cloned().collect()
    }

    /// Names of all objects, each with its bytes.
    pub fn sizes(&self) -> Vec<(String, usize)> {
        lock(&self.0.objects).iter().map(|(name, stored)| (name.clone(), stored.bytes.len())).collect()
    }

    /// How many objects there are.
    pub fn count(&self) -> usize {
        lock(&self.0.objects).len()
    }

    /// Uploads that were begun and not ended.
    pub fn unfinished_uploads(&self) -> usize {
        lock(&self.0.uploads).len()
    }

    /// Puts an object there, past the protocol.
    pub fn insert(&self, name: &str, bytes: impl Into<Bytes>) {
        let stored = self.stored(bytes.into(), None);
        lock(&self.0.objects).insert(name.to_owned(), stored);
    }

    /// Takes an object away, past the protocol.
    pub fn remove(&self, name: &str) {
        lock(&self.0.objects).remove(name);
    }

    /// Nobody may delete this object from now on.
    pub fn lock(&self, name: &str) {
        lock(&self.0.locked).insert(name.to_owned());
    }

    /// Makes unfinished uploads older.
    pub fn age_uploads(&self, by: Duration) {
        for upload in lock(&self.0.uploads).values_mut() {
            upload.begun -= by;
        }
    }

    fn next(&self) -> usize {
        self.0.counter.fetch_add(1, Ordering::SeqCst)
    }

    fn stored(&self, bytes: Bytes, metadata: Option<Metadata>) -> Stored {
        Stored { bytes, etag: format!("{:032x}", self.next()), metadata, modified: SystemTime::now() }
    }

    async fn receive(&self, body: Option<StreamingBlob>, crc32c: Option<&str>) -> S3Result<Bytes> {
        receive(body, crc32c, !self.0.takes_any_checksum.load(Ordering::SeqCst)).await
    }

    fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        if *lock(&self.0.bucket) == bucket { Ok(()) } else { Err(s3_error!(NoSuchBucket, "the bucket does not exist")) }
    }

    /// Stores under a name, in one step with the look whether it is free.
    fn publish(&self, key: String, stored: Stored, if_none_match: Option<IfNoneMatch>) -> S3Result<ETag> {
        let mut objects = lock(&self.0.objects);
        let refuses = if_none_match.is_some() && !self.0.ignores_conditions.load(Ordering::SeqCst);
        if refuses && objects.contains_key(&key) {
            return Err(s3_error!(PreconditionFailed, "the name is taken"));
        }
        let etag = ETag::Strong(stored.etag.clone());
        objects.insert(key, stored);
        Ok(etag)
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<Stored> {
        self.check_bucket(bucket)?;
        lock(&self.0.objects).get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey, "the key does not exist"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn receive(body: Option<StreamingBlob>, crc32c: Option<&str>, is_needed: bool) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    if let Some(mut body) = body {
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| s3_error!(IncompleteBody, "{error}"))?);
        }
    }
    match crc32c {
        Some(given) if given == STANDARD.encode(crc32c::crc32c(&bytes).to_be_bytes()) => Ok(bytes.freeze()),
        Some(_) => Err(s3_error!(BadDigest)),
        None if !is_needed => Ok(bytes.freeze()),
        None => Err(s3_error!(InvalidRequest, "every object is expected to come with its checksum")),
    }
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        self.check_bucket(&input.bucket)?;
        let bytes = self.receive(input.body, input.checksum_crc32c.as_deref()).await?;
        let stored = self.stored(bytes, input.metadata);
        let e_tag = Some(self.publish(input.key, stored, input.if_none_match)?);
        Ok(S3Response::new(PutObjectOutput { e_tag, ..Default::default() }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let found = self.find(&input.bucket, &input.key)?;
        if let Some(condition) = &input.if_match
            && condition.as_etag().is_some_and(|etag| etag.value() != found.etag)
        {
            return Err(s3_error!(PreconditionFailed));
        }
        let size = found.bytes.len() as u64;
        let range = match &input.range {
            // An object without bytes has no range, says S3.
            Some(_) if size == 0 => return Err(s3_error!(InvalidRange)),
            Some(range) => Some(range.check(size).map_err(|_| s3_error!(InvalidRange))?),
            None => None,
        };
        let bytes = match &range {
            Some(range) => {
                found.bytes.slice(usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0))
            }
            None => found.bytes.clone(),
        };
        let output = GetObjectOutput {
            content_length: i64::try_from(bytes.len()).ok(),
            content_range: range.map(|range| format!("bytes {}-{}/{size}", range.start, range.end - 1)),
            e_tag: Some(ETag::Strong(found.etag)),
            metadata: found.metadata,
            // Several pieces, as they come over a network.
            body: Some(StreamingBlob::wrap(futures::stream::iter(pieces(bytes)))),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let found = self.find(&request.input.bucket, &request.input.key)?;
        let output = HeadObjectOutput {
            content_length: i64::try_from(found.bytes.len()).ok(),
            e_tag: Some(ETag::Strong(found.etag)),
            metadata: found.metadata,
            last_modified: Some(found.modified.into()),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.check_bucket(&request.input.bucket)?;
        if lock(&self.0.locked).contains(&request.input.key) {
            return Err(s3_error!(AccessDenied, "it is locked"));
        }
        lock(&self.0.objects).remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.check_bucket(&request.input.bucket)?;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in request.input.delete.objects {
            if lock(&self.0.locked).contains(&object.key) {
                let (code, message) = (Some("AccessDenied".to_owned()), Some("it is locked".to_owned()));
                errors.push(Error { code, message, key: Some(object.key), version_id: None });
            } else {
                lock(&self.0.objects).remove(&object.key);
                deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
            }
        }
        let deleted = (!request.input.delete.quiet.unwrap_or(false)).then_some(deleted);
        Ok(S3Response::new(DeleteObjectsOutput { deleted, errors: Some(errors), ..Default::default() }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        self.check_bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.clone().or(input.start_after.clone()).unwrap_or_default();
        let page =
            self.0.page.load(Ordering::SeqCst).min(usize::try_from(input.max_keys.unwrap_or(1000)).unwrap_or(1000));
        let (mut contents, mut folders, mut last, mut truncated) = (Vec::new(), Vec::new(), None, false);
        let objects = lock(&self.0.objects);
        let mut from = if after > prefix { Bound::Excluded(after) } else { Bound::Included(prefix.clone()) };
        while let Some((key, stored)) = objects.range::<String, _>((from, Bound::Unbounded)).next() {
            let Some(rest) = key.strip_prefix(&prefix) else { break };
            if contents.len() + folders.len() == page {
                truncated = true;
                break;
            }
            let folder = input.delimiter.as_ref().and_then(|delimiter| rest.split_once(delimiter.as_str()));
            if let Some((folder, _)) = folder {
                let folder = format!("{prefix}{folder}/");
                // Past everything in the folder in one step; a token may say the same.
                let past = format!("{folder}\u{10ffff}");
                folders.push(CommonPrefix { prefix: Some(folder) });
                last = Some(past.clone());
                from = Bound::Excluded(past);
            } else {
                contents.push(Object {
                    key: Some(key.clone()),
                    size: i64::try_from(stored.bytes.len()).ok(),
                    last_modified: Some(stored.modified.into()),
                    ..Default::default()
                });
                last = Some(key.clone());
                from = Bound::Excluded(key.clone());
            }
        }
        let output = ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            key_count: i32::try_from(contents.len() + folders.len()).ok(),
            contents: Some(contents),
            common_prefixes: Some(folders),
            is_truncated: Some(truncated),
            next_continuation_token: last.filter(|_| truncated),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        self.check_bucket(&input.bucket)?;
        let id = format!("upload-{}", self.next());
        let pending = Pending {
            key: input.key.clone(),
            metadata: input.metadata,
            begun: SystemTime::now(),
            parts: BTreeMap::new(),
        };
        lock(&self.0.uploads).insert(id.clone(), pending);
        let output = CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let bytes = self.receive(input.body, input.checksum_crc32c.as_deref()).await?;
        let mut uploads = lock(&self.0.uploads);
        let upload = uploads.get_mut(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        upload.parts.insert(input.part_number, bytes);
        let e_tag = Some(ETag::Strong(format!("part-{}", input.part_number)));
        Ok(S3Response::new(UploadPartOutput { e_tag, ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let stored = {
            let uploads = lock(&self.0.uploads);
            let upload = uploads.get(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
            let parts = input.multipart_upload.and_then(|parts| parts.parts).unwrap_or_default();
            let mut bytes = BytesMut::new();
            for (index, part) in parts.iter().enumerate() {
                let part = part
                    .part_number
                    .and_then(|number| upload.parts.get(&number))
                    .ok_or_else(|| s3_error!(InvalidPart))?;
                if index + 1 < parts.len() && part.len() < 5 << 20 {
                    return Err(s3_error!(EntityTooSmall));
                }
                bytes.extend_from_slice(part);
            }
            self.stored(bytes.freeze(), upload.metadata.clone())
        };
        let e_tag = Some(self.publish(input.key.clone(), stored, input.if_none_match)?);
        lock(&self.0.uploads).remove(&input.upload_id);
        let output = CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag,
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let found = lock(&self.0.uploads).remove(&request.input.upload_id);
        found.map(|_| S3Response::new(AbortMultipartUploadOutput::default())).ok_or_else(|| s3_error!(NoSuchUpload))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        self.check_bucket(&input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let uploads = lock(&self.0.uploads);
        let found =
            uploads.iter().filter(|(_, upload)| upload.key.starts_with(&prefix)).map(|(id, upload)| MultipartUpload {
                key: Some(upload.key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(upload.begun.into()),
                ..Default::default()
            });
        let output = ListMultipartUploadsOutput {
            uploads: Some(found.collect()),
            is_truncated: Some(false),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }
}

fn pieces(bytes: Bytes) -> Vec<std::io::Result<Bytes>> {
    const PIECE: usize = 64 << 10;
    (0..bytes.len()).step_by(PIECE).map(|at| Ok(bytes.slice(at..bytes.len().min(at + PIECE)))).collect()
}

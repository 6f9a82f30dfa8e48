//! Deleting: one object, or a thousand in one request.
//!
//! A request for many is answered for each. A server that refuses such a request as a whole (Google's does not know it, and rights may be given
//! for single deletions only) is asked one by one, so that the refusal of each object is told; from then on it is always asked so if it
//! does not know the request.

use std::sync::atomic::Ordering;

use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use super::error::{Failure, kind_of};
use super::{Bucket, options};
use crate::storage::{Key, StorageErrorKind};

/// The most objects that S3 deletes in one request.
pub(super) const AT_ONCE: usize = 1000;

impl Bucket {
    pub(super) fn delete(&self, key: &Key) -> Result<(), Failure> {
        let engine = self.engine()?;
        let request = engine.client.delete_object().bucket(&self.settings.bucket).key(self.path(key));
        match engine.wait(options::payer!(request, self.settings).send()).map_err(|error| Failure::of(&error)) {
            Err(failure) if failure.kind == StorageErrorKind::NotFound => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Deletes at most [`AT_ONCE`] objects; those that may still be there, and why.
    pub(super) fn delete_all(&self, keys: &[Key]) -> Vec<(Key, Failure)> {
        if keys.len() > 1 && !self.deletes_singly.load(Ordering::Relaxed) {
            match self.delete_in_one_request(keys) {
                Ok(failed) => return failed,
                Err(failure) if failure.is_refusal() => {
                    tracing::debug!("the server does not delete many objects at once: {}", failure.reason);
                    // A right that is missing now may be given later.
                    let unknown = failure.status != Some(403);
                    self.deletes_singly.fetch_or(unknown, Ordering::Relaxed);
                }
                Err(failure) => return keys.iter().map(|key| (key.clone(), failure.clone())).collect(),
            }
        }
        keys.iter().filter_map(|key| Some((key.clone(), self.delete(key).err()?))).collect()
    }

    fn delete_in_one_request(&self, keys: &[Key]) -> Result<Vec<(Key, Failure)>, Failure> {
        let built = |error: aws_sdk_s3::error::BuildError| {
            Failure::new(StorageErrorKind::Unreachable, format!("the request cannot be made: {error}"))
        };
        let objects = keys.iter().map(|key| ObjectIdentifier::builder().key(self.path(key)).build());
        let objects = objects.collect::<Result<Vec<_>, _>>().map_err(built)?;
        let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build().map_err(built)?;
        let engine = self.engine()?;
        let request = engine.client.delete_objects().bucket(&self.settings.bucket).delete(delete);
        let request = options::payer!(request, self.settings);
        let answer = engine.wait(request.send()).map_err(|error| Failure::of(&error))?;
        let mut failed = Vec::new();
        for error in answer.errors.unwrap_or_default() {
            let path = error.key.as_deref().unwrap_or_default();
            let kind = kind_of(error.code.as_deref(), None);
            if kind == StorageErrorKind::NotFound {
                continue;
            }
            let Some(key) = keys.iter().find(|key| self.path(key) == path) else {
                let reason = format!("the server answers for an object that it was not asked for, {path:?}");
                return Err(Failure::new(StorageErrorKind::Unreachable, reason));
            };
            let said = error.message.as_deref().unwrap_or("no reason given");
            let reason = error.code.as_ref().map_or_else(|| said.to_owned(), |code| format!("{said} ({code})"));
            failed.push((key.clone(), Failure { code: error.code, ..Failure::new(kind, reason) }));
        }
        Ok(failed)
    }
}

//! What the server can do, and sweeping up after processes that were killed.

use std::time::{Duration, SystemTime};

use super::error::Failure;
use super::{Bucket, S3, options};
use crate::storage::{Key, PROBES, Put, Storage, StorageError, StorageErrorKind};

impl S3 {
    /// Finds out whether the server honours `If-None-Match: *`: stores an object twice under a new name of the folder
    /// `probes`, and removes it. Some servers ignore the condition without a word and overwrite.
    ///
    /// # Errors
    /// The bucket cannot be written to.
    pub fn probe_conditional_writes(&self) -> Result<bool, StorageError> {
        let mut random = [0_u8; 8];
        let failed = |error: String| {
            let failure = Failure::new(StorageErrorKind::Unreachable, error);
            self.bucket.dress("write", &Key::root(), failure)
        };
        getrandom::fill(&mut random).map_err(|error| failed(error.to_string()))?;
        let name = format!("{PROBES}/conditional-{:016x}", u64::from_be_bytes(random));
        let key = Key::parse(&name).map_err(|error| failed(error.to_string()))?;
        // Asked of the server itself, whatever the settings say about it.
        let asking = S3::new(super::S3Settings { conditional_writes: true, ..self.bucket.settings.clone() });
        asking.put(&key, b"first")?;
        let second = asking.put(&key, b"second");
        // A writer that may not delete leaves the probe behind: it is small, and no reader takes it for anything.
        if let Err(error) = asking.delete(&key) {
            tracing::debug!("the probe stays: {error}");
        }
        Ok(second? == Put::Exists)
    }
}

impl Bucket {
    /// Gives up uploads in parts that were begun longer than `age` ago and never finished: their writers were killed, and
    /// their parts cost money though nobody sees them. Returns how many.
    pub(super) fn sweep(&self, age: Duration) -> Result<u64, Failure> {
        let engine = self.engine()?;
        let path = self.path(&Key::root());
        let prefix = if path.is_empty() { path } else { format!("{path}/") };
        let oldest = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut swept = 0;
        let (mut after_key, mut after_upload) = (None, None);
        loop {
            let request = engine.client.list_multipart_uploads().bucket(&self.settings.bucket).prefix(&prefix);
            let request = request.set_key_marker(after_key.take()).set_upload_id_marker(after_upload.take());
            let page =
                engine.wait(options::payer!(request, self.settings).send()).map_err(|error| Failure::of(&error))?;
            for upload in page.uploads.unwrap_or_default() {
                let begun = upload.initiated.and_then(|begun| SystemTime::try_from(begun).ok());
                let (Some(key), Some(id)) = (upload.key, upload.upload_id) else { continue };
                if begun.is_none_or(|begun| begun > oldest) {
                    continue;
                }
                let request =
                    engine.client.abort_multipart_upload().bucket(&self.settings.bucket).key(key).upload_id(id);
                match engine.wait(options::payer!(request, self.settings).send()).map_err(|error| Failure::of(&error)) {
                    // Finished or given up meanwhile.
                    Err(failure) if failure.code.as_deref() == Some("NoSuchUpload") => {}
                    other => {
                        other?;
                        swept += 1;
                    }
                }
            }
            if page.is_truncated != Some(true) || page.next_key_marker.is_none() {
                return Ok(swept);
            }
            (after_key, after_upload) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }
}

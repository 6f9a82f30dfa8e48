//! What lies directly under a folder, page by page.

use super::error::Failure;
use super::{Bucket, options};
use crate::storage::{Key, Listed, StorageErrorKind};

impl Bucket {
    /// Objects and folders directly under a folder, sorted by name.
    ///
    /// A name that cannot be ours is passed over: the marker objects that some tools make for folders, for example.
    pub(super) fn list(&self, folder: &Key) -> Result<Vec<Listed>, Failure> {
        let path = self.path(folder);
        let prefix = if path.is_empty() { path } else { format!("{path}/") };
        let name = |key: &str| key.strip_prefix(&prefix).map(str::to_owned).filter(|name| Key::is_part(name));
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let engine = self.engine()?;
            let request = engine.client.list_objects_v2().bucket(&self.settings.bucket).prefix(&prefix).delimiter("/");
            let request = options::payer!(request, self.settings).set_continuation_token(token.clone());
            let page = engine.wait(request.send()).map_err(|error| Failure::of(&error))?;
            for object in page.contents.unwrap_or_default() {
                if let Some(name) = object.key.as_deref().and_then(name) {
                    let size = object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                    found.push(Listed { name, size, folder: false });
                }
            }
            for common in page.common_prefixes.unwrap_or_default() {
                let folder = common.prefix.as_deref().and_then(|prefix| prefix.strip_suffix('/'));
                if let Some(name) = folder.and_then(name) {
                    found.push(Listed { name, size: 0, folder: true });
                }
            }
            if page.is_truncated != Some(true) {
                break;
            }
            let next = page.next_continuation_token;
            if next.is_none() || next == token {
                // Half a listing would make what is missing from it look absent.
                return Err(Failure::new(StorageErrorKind::Unreachable, "the server broke its listing off"));
            }
            token = next;
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }
}

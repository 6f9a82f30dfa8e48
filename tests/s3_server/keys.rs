//! Which keys the server accepts: one for ever, and those that a test issues for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

use super::{ACCESS_KEY, SECRET_KEY};

/// A key that was issued: `AKIAISSUED` and when, in seconds.
const ISSUED: &str = "AKIAISSUED";

/// The keys, shared by the server and the test.
#[derive(Clone, Default)]
pub struct Keys(Arc<AtomicU64>);

impl Keys {
    /// Keys that are issued count for so many seconds.
    pub fn accept_issued_for(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }

    /// A key that is issued now, and the secret that belongs to it.
    pub fn issue() -> (String, String) {
        let key = format!("{ISSUED}{}", now());
        let secret = secret_of(&key);
        (key, secret)
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn secret_of(key: &str) -> String {
    format!("secret-of-{key}")
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, key: &str) -> S3Result<SecretKey> {
        if key == ACCESS_KEY {
            return Ok(SecretKey::from(SECRET_KEY));
        }
        let issued = key.strip_prefix(ISSUED).and_then(|digits| digits.parse::<u64>().ok());
        match issued {
            Some(issued) if now() <= issued + self.0.load(Ordering::SeqCst) => Ok(SecretKey::from(secret_of(key))),
            Some(_) => Err(s3_error!(ExpiredToken, "the token has expired")),
            None => Err(s3_error!(InvalidAccessKeyId)),
        }
    }
}

//! What a failed request means.
//!
//! A missing object is told from everything else by the server's own word, `NoSuchKey`: a missing bucket, a proxy's error page
//! and an answer without a body are 404 as well, and taking one of them for the end of the WAL would end a recovery early.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::storage::StorageErrorKind;

/// A failed request, sorted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) kind: StorageErrorKind,
    /// The server's code, if it answered with one.
    pub(super) code: Option<String>,
    /// HTTP status, if there was an answer.
    pub(super) status: Option<u16>,
    pub(super) reason: String,
}

impl Failure {
    pub(super) fn new(kind: StorageErrorKind, reason: impl Into<String>) -> Failure {
        Failure { kind, code: None, status: None, reason: reason.into() }
    }

    pub(super) fn not_found() -> Failure {
        Failure::new(StorageErrorKind::NotFound, "there is no such object")
    }

    /// `If-None-Match: *` or `If-Match` was not fulfilled.
    pub(super) fn is_precondition(&self) -> bool {
        self.status == Some(412) || self.code.as_deref() == Some("PreconditionFailed")
    }

    /// Another request for the same name was under way: to be tried again, says S3.
    pub(super) fn is_conflict(&self) -> bool {
        self.code.as_deref() == Some("ConditionalRequestConflict")
            || (self.status == Some(409) && self.code.as_deref().is_none_or(|code| code == "OperationAborted"))
    }

    /// The range lies behind the object's end.
    pub(super) fn is_range(&self) -> bool {
        self.status == Some(416) || self.code.as_deref() == Some("InvalidRange")
    }

    /// The server understood who asks, and will not do what the request says, now or later.
    pub(super) fn is_refusal(&self) -> bool {
        let is_about_request = matches!(self.status, Some(400 | 403 | 405 | 411 | 501));
        is_about_request && matches!(self.kind, StorageErrorKind::Unreachable | StorageErrorKind::Denied)
    }

    /// A 404 that does not say what is missing.
    pub(super) fn is_vague_absence(&self) -> bool {
        self.status == Some(404) && self.kind == StorageErrorKind::Unreachable
    }

    /// Sorts what the SDK returned.
    pub(super) fn of<E>(error: &SdkError<E>) -> Failure
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        match error {
            SdkError::ServiceError(answer) => {
                let code = answer.err().code();
                let kind = kind_of(code, status);
                let said = answer.err().message().map(first_line);
                let what = match (code, said) {
                    (Some(code), Some(said)) => format!("{said} ({code})"),
                    (Some(code), None) => code.to_owned(),
                    (None, Some(said)) => said,
                    (None, None) => "no reason given".to_owned(),
                };
                let status_text = status.map_or_else(String::new, |status| format!(", HTTP status {status}"));
                let reason = format!("{what}{status_text}");
                Failure { kind, code: code.map(str::to_owned), status, reason }
            }
            SdkError::TimeoutError(_) => Failure::new(StorageErrorKind::Unreachable, "no answer in time"),
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => Failure::of_road(error),
            _ => Failure { status, ..Failure::new(StorageErrorKind::Unreachable, chain(error)) },
        }
    }

    /// The request never got an answer: no credentials, no connection.
    fn of_road(error: &(dyn Error + 'static)) -> Failure {
        let credentials = causes(error).any(|cause| cause.is::<CredentialsError>());
        let kind = if credentials { StorageErrorKind::Credentials } else { StorageErrorKind::Unreachable };
        Failure::new(kind, chain(error))
    }
}

/// What a code of the S3 protocol means for whoever asked.
///
/// Source: "Error responses" of the S3 API reference.
pub(super) fn kind_of(code: Option<&str>, status: Option<u16>) -> StorageErrorKind {
    match code.unwrap_or_default() {
        "NoSuchKey" => StorageErrorKind::NotFound,
        "NoSuchBucket" => StorageErrorKind::NoBucket,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "MethodNotAllowed" | "AccessForbidden" => {
            StorageErrorKind::Denied
        }
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "ExpiredTokenException"
        | "MissingSecurityHeader" => StorageErrorKind::Credentials,
        "RequestTimeTooSkewed" | "RequestExpired" => StorageErrorKind::ClockSkew,
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            StorageErrorKind::WrongRegion
        }
        "SlowDown"
        | "ServiceUnavailable"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "TooManyRequests" => StorageErrorKind::Throttled,
        "InvalidObjectState" => StorageErrorKind::Frozen,
        "QuotaExceeded" | "StorageFull" | "XMinioStorageFull" | "InsufficientStorage" => StorageErrorKind::NoSpace,
        _ => match status {
            Some(301) => StorageErrorKind::WrongRegion,
            Some(401 | 403) => StorageErrorKind::Denied,
            Some(429 | 503) => StorageErrorKind::Throttled,
            Some(507) => StorageErrorKind::NoSpace,
            _ => StorageErrorKind::Unreachable,
        },
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// The causes of an error, each said once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in causes(error) {
        let words = first_line(&cause.to_string());
        if !said.iter().any(|earlier| earlier.contains(&words)) {
            said.push(words);
        }
    }
    said.join(": ")
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end_matches('.').chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the server's own word for it makes an object absent; every other 404 is "cannot tell".
    #[test]
    fn absence_is_certain() {
        assert_eq!(kind_of(Some("NoSuchKey"), Some(404)), StorageErrorKind::NotFound);
        assert_eq!(kind_of(Some("NoSuchBucket"), Some(404)), StorageErrorKind::NoBucket);
        for vague in [None, Some("NotFound"), Some("NoSuchUpload")] {
            assert_eq!(kind_of(vague, Some(404)), StorageErrorKind::Unreachable, "{vague:?}");
        }
    }

    /// Codes win over the status, and the status speaks where there is no code.
    #[test]
    fn kinds() {
        let rows = [
            (Some("RequestTimeTooSkewed"), 403, StorageErrorKind::ClockSkew),
            (Some("ExpiredToken"), 400, StorageErrorKind::Credentials),
            (Some("AccessDenied"), 403, StorageErrorKind::Denied),
            (Some("SlowDown"), 503, StorageErrorKind::Throttled),
            (Some("PermanentRedirect"), 301, StorageErrorKind::WrongRegion),
            (Some("InvalidObjectState"), 403, StorageErrorKind::Frozen),
            (None, 403, StorageErrorKind::Denied),
            (None, 503, StorageErrorKind::Throttled),
            (Some("InternalError"), 500, StorageErrorKind::Unreachable),
        ];
        for (code, status, kind) in rows {
            assert_eq!(kind_of(code, Some(status)), kind, "{code:?} {status}");
        }
    }
}

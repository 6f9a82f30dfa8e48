//! `Cost`: what a command has cost, for `--stats`.

use std::fmt;
use std::io::Write;
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use crate::report::Program;
use crate::storage::{RequestCounts, request_counts};

/// Requests to object stores, bytes, and time. What lies in a directory costs no requests.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Cost {
    /// Seconds from beginning to end.
    seconds: f64,
    /// All requests together.
    requests: u64,
    /// Requests by kind, and bytes.
    #[serde(flatten)]
    counts: RequestCounts,
}

impl Cost {
    /// Of this process, since it began its work.
    pub(super) fn since(begun: Instant) -> Cost {
        let counts = request_counts();
        Cost { seconds: begun.elapsed().as_secs_f64(), requests: counts.requests(), counts }
    }

    /// Tells it on standard error: standard output is the command's answer.
    pub(super) fn print(&self, program: Program, json: bool) {
        let words = || format!("{program}: cost:  {self}");
        let line = if json { serde_json::to_string(self).unwrap_or_default() } else { words() };
        // There is nowhere left to say that it could not be said.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        write!(f, "{:.2} s, {} requests", self.seconds, HumanCount(self.requests))?;
        let kinds = [
            ("PUT", counts.put),
            ("GET", counts.get),
            ("HEAD", counts.head),
            ("LIST", counts.list),
            ("multipart", counts.multipart),
            ("DELETE", counts.delete),
        ];
        let made: Vec<String> = { kinds.iter() }
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{} {kind}", HumanCount(*count)))
            .collect();
        if !made.is_empty() {
            write!(f, " ({})", made.join(", "))?;
        }
        if counts.repeated > 0 {
            write!(f, ", {} of them repeated", HumanCount(counts.repeated))?;
        }
        write!(f, "; sent {}, received {}", HumanBytes(counts.sent_bytes), HumanBytes(counts.received_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds that were not used are not named, and the JSON has all of them on one level.
    #[test]
    fn told() {
        let nothing = Cost { seconds: 0.5, requests: 0, counts: RequestCounts::default() };
        assert_eq!(nothing.to_string(), "0.50 s, 0 requests; sent 0 B, received 0 B");
        let counts =
            RequestCounts { get: 1200, list: 3, repeated: 2, received_bytes: 5 << 20, ..RequestCounts::default() };
        let some = Cost { seconds: 2.0, requests: counts.requests(), counts };
        let words = "2.00 s, 1,203 requests (1,200 GET, 3 LIST), 2 of them repeated; sent 0 B, received 5.00 MiB";
        assert_eq!(some.to_string(), words);
        let json = serde_json::to_value(some).expect("JSON");
        assert_eq!(
            (&json["requests"], &json["get"], &json["received_bytes"]),
            (&1203.into(), &1200.into(), &(5 << 20).into())
        );
    }
}

//! `pitr annotate`: words for people beside a backup.

use std::collections::BTreeMap;

use super::{KeepingError, author, find, tell};
use crate::catalog::{BackupId, Saying};
use crate::command::{Context, RepositoryArg};
use crate::report::ExitStatus;

/// Longest key and longest value, in bytes.
const KEY_BYTES: usize = 64;
const VALUE_BYTES: usize = 4096;

/// Write down something about a base backup
///
/// The words stand beside the backup and are shown by "pitr list". They change nothing else: retention treats a backup with words
/// like any other ("pitr keep" keeps one). The last word of each key counts; an empty one ("KEY=") takes the key away.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// The backup
    #[arg(value_name = "BACKUP")]
    pub backup: BackupId,
    /// Keys and their values
    #[arg(value_name = "KEY=VALUE")]
    pub values: Vec<String>,
    /// A text; an empty one takes it away
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
}

const EXAMPLES: &str = "\
Examples:  pitr annotate 20261121T104500Z-1a2b3c4d ticket=4711 before=migration
           pitr annotate 20261121T104500Z-1a2b3c4d --text \"last one on the old hardware\"";

/// Writes a note.
///
/// # Errors
/// See [`KeepingError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, KeepingError> {
    let mut values = BTreeMap::new();
    for text in &args.values {
        let (key, value) = read(text).map_err(KeepingError::Usage)?;
        values.insert(key.to_owned(), value.to_owned());
    }
    if args.text.as_ref().is_some_and(|text| text.len() > VALUE_BYTES) {
        return Err(KeepingError::Usage(format!("the text has more than {VALUE_BYTES} bytes")));
    }
    if values.is_empty() && args.text.is_none() {
        return Err(KeepingError::Usage("nothing to write down: give KEY=VALUE or --text".to_owned()));
    }
    let named = find(args.backup, context)?;
    let says = Saying::Annotation { values, text: args.text.clone() };
    named.server.add_note(args.backup, &named.known.notes, &author(), says)?;
    tell(&named, context, &format!("written down beside backup {}", args.backup))?;
    Ok(ExitStatus::Success)
}

fn read(text: &str) -> Result<(&str, &str), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("\"{text}\" is not KEY=VALUE"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if key.is_empty() || key.len() > KEY_BYTES || !key.bytes().all(plain) {
        return Err(format!("\"{key}\" is no key: 1 to {KEY_BYTES} of A-Z a-z 0-9 . _ -"));
    }
    if value.len() > VALUE_BYTES {
        return Err(format!("the value of \"{key}\" has more than {VALUE_BYTES} bytes"));
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys are plain words, values are anything, and what is neither is refused.
    #[test]
    fn pairs() {
        assert_eq!(read("a.b=c=d e"), Ok(("a.b", "c=d e")));
        assert_eq!(read("a="), Ok(("a", "")));
        for wrong in ["", "a", "=b", "a b=c", "ä=c"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

//! `Arguments`: the command line of the two small programs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::CallError;
use crate::wal::ClusterName;

/// What was given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::command) struct Arguments {
    /// `--config`.
    pub(in crate::command) config: Option<PathBuf>,
    /// `--cluster`.
    pub(in crate::command) cluster: Option<ClusterName>,
    /// `--stats`.
    pub(in crate::command) stats: bool,
    /// What is no option, in order.
    pub(in crate::command) operands: Vec<OsString>,
}

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::command) enum Asked {
    /// To do the work.
    Work(Arguments),
    /// How to use the program.
    Help,
    /// Which version it is.
    Version,
}

impl Asked {
    /// Reads the arguments behind the program's name. `operands` are the names of those that must be there.
    ///
    /// Strict on purpose: an option that is not understood may have been meant to say where WAL belongs.
    pub(in crate::command) fn read(
        arguments: impl IntoIterator<Item = OsString>,
        operands: &[&str],
    ) -> Result<Asked, CallError> {
        let usage = |wrong: String| CallError::Usage { wrong };
        let mut found = Arguments::default();
        let mut given = arguments.into_iter();
        let mut options_end = false;
        while let Some(argument) = given.next() {
            if options_end || !argument.as_bytes().starts_with(b"-") || argument == "-" {
                found.operands.push(argument);
                continue;
            }
            let (name, inline) = split(&argument);
            let value = |given: &mut dyn Iterator<Item = OsString>| {
                let value = inline.map(OsStr::to_owned).or_else(|| given.next());
                value
                    .filter(|value| !value.is_empty())
                    .ok_or_else(|| usage(format!("option {} needs a value", name.display())))
            };
            match name.to_str() {
                Some("--") if inline.is_none() => options_end = true,
                Some("--help" | "-h") if inline.is_none() => return Ok(Asked::Help),
                Some("--version" | "-V") if inline.is_none() => return Ok(Asked::Version),
                Some("--stats") if inline.is_none() && !found.stats => found.stats = true,
                Some("--config") if found.config.is_none() => found.config = Some(value(&mut given)?.into()),
                Some("--cluster") if found.cluster.is_none() => {
                    let text = value(&mut given)?;
                    let name = text.to_string_lossy().parse().map_err(|error| usage(format!("{error}")))?;
                    found.cluster = Some(name);
                }
                Some("--config" | "--cluster" | "--stats") if inline.is_none() || name != "--stats" => {
                    return Err(usage(format!("option {} given twice", name.display())));
                }
                _ => return Err(usage(format!("there is no option {}", name.display()))),
            }
        }
        match (found.operands.get(operands.len()), operands.get(found.operands.len())) {
            (Some(extra), _) => Err(usage(format!("there is one argument too many: \"{}\"", extra.display()))),
            (None, Some(missing)) => Err(usage(format!("the argument {missing} is missing"))),
            (None, None) => Ok(Asked::Work(found)),
        }
    }
}

/// `--name=value` as name and value.
fn split(argument: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let bytes = argument.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) if bytes.starts_with(b"--") => {
            (OsStr::from_bytes(&bytes[..at]), Some(OsStr::from_bytes(&bytes[at + 1..])))
        }
        _ => (argument, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Asked, CallError> {
        Asked::read(words.iter().map(OsString::from), &["FILE", "PATH"])
    }

    /// Options stand anywhere and in both spellings; nothing is guessed.
    #[test]
    fn command_lines() {
        let expected = Arguments {
            config: Some("/c".into()),
            cluster: Some("main".parse().expect("a valid name")),
            stats: true,
            operands: vec!["f".into(), "p".into()],
        };
        for words in [
            ["--config", "/c", "--cluster=main", "--stats", "f", "p"].as_slice(),
            &["f", "--config=/c", "p", "--cluster", "main", "--stats"],
            &["--config=/c", "--stats", "--cluster=main", "--", "f", "p"],
        ] {
            assert_eq!(read(words).expect("a good command line"), Asked::Work(expected.clone()), "{words:?}");
        }
        assert_eq!(read(&["--help"]).expect("help"), Asked::Help);
        assert_eq!(read(&["f", "-V"]).expect("version"), Asked::Version);
    }

    /// What is not understood is refused, with the word that was not.
    #[test]
    fn refused() {
        for (words, wrong) in [
            ([].as_slice(), "the argument FILE is missing"),
            (&["f"], "the argument PATH is missing"),
            (&["f", "p", "x"], "there is one argument too many: \"x\""),
            (&["--confg", "/c", "f", "p"], "there is no option --confg"),
            (&["-c", "/c", "f", "p"], "there is no option -c"),
            (&["f", "p", "--config"], "option --config needs a value"),
            (&["f", "p", "--config="], "option --config needs a value"),
            (&["--config=a", "--config=b", "f", "p"], "option --config given twice"),
            (&["--stats", "--stats", "f", "p"], "option --stats given twice"),
            (&["--stats=1", "f", "p"], "there is no option --stats"),
            (&["--help=x"], "there is no option --help"),
        ] {
            let error = read(words).expect_err("a bad command line");
            assert_eq!(error.to_string(), wrong, "{words:?}");
        }
        assert!(read(&["--cluster", "../x", "f", "p"]).is_err());
    }
}

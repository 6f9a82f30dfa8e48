//! Finding the programs of a PostgreSQL version on this host.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::StartError;
use crate::wal::PostgresMajor;

/// Where distributions put them; `{}` is the major version.
const USUAL: [&str; 3] = ["/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/usr/local/pgsql/bin"];

/// The directory with the programs of a version: the one given, else a usual place, else one of `PATH`.
///
/// # Errors
/// None has them; or the one given has those of another version.
pub fn find(given: Option<&Path>, major: PostgresMajor) -> Result<PathBuf, StartError> {
    if let Some(directory) = given {
        return match version_in(directory) {
            Some(found) if found == major => Ok(directory.to_owned()),
            Some(found) => Err(StartError::OtherVersion { directory: directory.to_owned(), found, expected: major }),
            None => Err(StartError::NoBinaries { major, looked_in: vec![directory.to_owned()] }),
        };
    }
    let usual = USUAL.iter().map(|pattern| PathBuf::from(pattern.replace("{}", &major.to_string())));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let looked_in: Vec<PathBuf> = usual.chain(std::env::split_paths(&path)).collect();
    let found = looked_in.iter().find(|directory| version_in(directory) == Some(major)).cloned();
    found.ok_or(StartError::NoBinaries { major, looked_in })
}

/// The version of the server in a directory, if `postgres` is there.
fn version_in(directory: &Path) -> Option<PostgresMajor> {
    let output = Command::new(directory.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-1)", "18beta1".
    let version = text.split_once("(PostgreSQL) ")?.1;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().map(PostgresMajor)
}

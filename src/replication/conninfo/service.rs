//! Service files: named sets of connection settings (libpq's `parseServiceInfo`, manual "The Connection Service File").

use std::path::{Path, PathBuf};

use super::{ConnInfoError, Environment};

/// Where Debian's libpq looks (`pg_config --sysconfdir`), then the place of builds with `--sysconfdir=/etc`.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/postgresql-common", "/etc"];

/// The settings of a service: from the user's file, else from the system's.
pub(super) fn settings(
    service: &str,
    file: Option<&str>,
    environment: &Environment,
) -> Result<Vec<(String, String)>, ConnInfoError> {
    let named = file.or_else(|| environment.variable("PGSERVICEFILE")).map(PathBuf::from);
    let must_exist = named.is_some();
    let mut searched = Vec::new();
    if let Some(path) = named.or_else(|| environment.in_home(".pg_service.conf")) {
        if let Some(found) = in_file(service, &path, must_exist)? {
            return Ok(found);
        }
        searched.push(path);
    }
    let directories = match environment.variable("PGSYSCONFDIR") {
        Some(directory) => vec![directory],
        None => SYSTEM_DIRECTORIES.to_vec(),
    };
    for directory in directories {
        let path = Path::new(directory).join("pg_service.conf");
        if let Some(found) = in_file(service, &path, false)? {
            return Ok(found);
        }
        searched.push(path);
    }
    Err(ConnInfoError::ServiceNotFound { service: service.to_owned(), searched })
}

fn in_file(service: &str, path: &Path, must_exist: bool) -> Result<Option<Vec<(String, String)>>, ConnInfoError> {
    match std::fs::read_to_string(path) {
        Ok(text) => group(&text, service).map_err(|line| ConnInfoError::ServiceFile { path: path.to_owned(), line }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(source) => Err(ConnInfoError::File { what: "service file", path: path.to_owned(), source }),
    }
}

/// The settings under `[service]`, `None` without such a group, or the number of the line that is wrong in it.
fn group(text: &str, service: &str) -> Result<Option<Vec<(String, String)>>, usize> {
    let mut found: Option<Vec<(String, String)>> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if name.strip_suffix(']') == Some(service) {
                found = Some(Vec::new());
            }
        } else if let Some(settings) = &mut found {
            let (key, value) = line.split_once('=').ok_or(number)?;
            // A service that names another service is refused by libpq, too.
            if key == "service" {
                return Err(number);
            }
            settings.push((key.to_owned(), value.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The group asked for is read and none of its neighbours, and a broken line is named by its number.
    #[test]
    fn groups() {
        let text = "# x\n[a]\nhost=1\n\n[b]\n  host=2  \nport=5433\n[c]\nnonsense\n[d]\nservice=a\n";
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(group(text, "a"), Ok(Some(vec![pair("host", "1")])));
        assert_eq!(group(text, "b"), Ok(Some(vec![pair("host", "2"), pair("port", "5433")])));
        assert_eq!(group(text, "c"), Err(9));
        assert_eq!(group(text, "d"), Err(11));
        assert_eq!(group(text, "e"), Ok(None));
    }
}

//! What connection settings take from around them: variables, home directory, operating system user.
//!
//! A value instead of direct calls, so that tests can give each connection surroundings of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The environment that fills in what a connection text leaves out.
#[derive(Clone, Default)]
pub struct Environment {
    /// The `PG*` variables, and nothing else.
    variables: BTreeMap<String, String>,
    /// Where `.pgpass`, `.pg_service.conf` and `.postgresql/` lie.
    home: Option<PathBuf>,
    /// The default role name.
    os_user: Option<String>,
}

impl Environment {
    /// That of this process. The user is looked up by effective user id in `/etc/passwd`, then in `LOGNAME` and `USER`
    /// (directories such as LDAP are not asked: there the role has to be named).
    #[must_use]
    pub fn of_process() -> Self {
        let entry = passwd_entry(rustix::process::geteuid().as_raw());
        let (os_user, passwd_home) = entry.map_or((None, None), |(user, home)| (Some(user), Some(home)));
        let named = || ["LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok()).filter(|n| !n.is_empty());
        Environment {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(name, _)| name.starts_with("PG"))
                .collect(),
            home: std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).or(passwd_home),
            os_user: os_user.or_else(named),
        }
    }

    /// Made-up surroundings, for tests and tools.
    #[must_use]
    pub fn of_values<'a>(
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        home: Option<PathBuf>,
        os_user: Option<&str>,
    ) -> Self {
        Environment {
            variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            home,
            os_user: os_user.map(str::to_owned),
        }
    }

    /// A variable that is set and not empty: libpq takes an empty one for an empty value, which for every setting
    /// read here means the default.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A file in the home directory, if there is one.
    pub(super) fn in_home(&self, relative: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(relative))
    }

    pub(super) fn os_user(&self) -> Option<&str> {
        self.os_user.as_deref()
    }
}

/// Name and home directory of a user id.
fn passwd_entry(uid: u32) -> Option<(String, PathBuf)> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [name, _, id, _, _, home, ..] if id.parse() == Ok(uid) => Some(((*name).to_owned(), PathBuf::from(home))),
            _ => None,
        }
    })
}

//! The two ways to write connection settings as one text: `key='value'` pairs and `postgresql://` URIs.
//!
//! Follows `conninfo_parse` and `conninfo_uri_parse_options` of libpq's `fe-connect.c`. What comes out are pairs in the
//! order written; which keys exist and what they mean is decided in the parent module. No error here repeats
//! the text it is about: it may hold a password.

use percent_encoding::percent_decode_str;

use super::ConnInfoError;

/// Splits a connection text into its settings, whichever of the two forms it has.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, ConnInfoError> {
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => uri(rest),
        None => keywords(text),
    }
}

fn syntax(reason: impl Into<String>) -> ConnInfoError {
    ConnInfoError::Syntax { reason: reason.into() }
}

/// `key = value key='quoted \' value'`: a backslash takes the next character as it is, in and outside of quotes.
fn keywords(text: &str) -> Result<Vec<(String, String)>, ConnInfoError> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(found);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_ascii_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.next_if_eq(&'=').is_none() {
            // The word before may be the tail of an unquoted password, so only its place is told.
            return Err(syntax(format!(
                "missing \"=\" after the word that should be setting number {}",
                found.len() + 1
            )));
        }
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_ascii_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => return Err(syntax(format!("unterminated quoted value of \"{key}\""))),
                None => break,
            }
        }
        found.push((key, value));
    }
}

/// `postgresql://[user[:password]@][host[:port][,...]][/dbname][?key=value[&...]]`, without the scheme.
fn uri(rest: &str) -> Result<Vec<(String, String)>, ConnInfoError> {
    let mut found = Vec::new();
    let mut add = |key: &str, raw: &str| -> Result<(), ConnInfoError> {
        found.push((key.to_owned(), decode(key, raw)?));
        Ok(())
    };
    let (before_query, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, dbname) = match before_query.split_once('/') {
        Some((authority, dbname)) => (authority, Some(dbname)),
        None => (before_query, None),
    };
    let hosts = match authority.split_once('@') {
        Some((who, hosts)) => {
            let (user, password) = who.split_once(':').map_or((who, None), |(user, password)| (user, Some(password)));
            if !user.is_empty() {
                add("user", user)?;
            }
            if let Some(password) = password.filter(|text| !text.is_empty()) {
                add("password", password)?;
            }
            hosts
        }
        None => authority,
    };
    if !hosts.is_empty() {
        let (names, ports) = host_list(hosts)?;
        add("host", &names)?;
        if ports.bytes().any(|b| b != b',') {
            add("port", &ports)?;
        }
    }
    if let Some(dbname) = dbname.filter(|text| !text.is_empty()) {
        add("dbname", dbname)?;
    }
    for parameter in query.into_iter().flat_map(|text| text.split('&')).filter(|text| !text.is_empty()) {
        let (key, value) = parameter.split_once('=').ok_or_else(|| syntax("missing \"=\" in a URI parameter"))?;
        let key = decode("a URI parameter", key)?;
        match (key.as_str(), value) {
            // JDBC's spelling, which libpq takes too.
            ("ssl", "true") => add("sslmode", "require")?,
            _ => add(&key, value)?,
        }
    }
    Ok(found)
}

/// Splits `a:1,[::1]:2,b` into `a,::1,b` and `1,2,`.
fn host_list(hosts: &str) -> Result<(String, String), ConnInfoError> {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(address) => {
                let (address, after) =
                    address.split_once(']').ok_or_else(|| syntax("missing \"]\" after an IPv6 address in the URI"))?;
                match after.strip_prefix(':') {
                    Some(port) => (address, port),
                    None if after.is_empty() => (address, ""),
                    None => return Err(syntax("unexpected character after \"]\" in the URI")),
                }
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    Ok((names.join(","), ports.join(",")))
}

fn decode(key: &str, raw: &str) -> Result<String, ConnInfoError> {
    let wrong = || syntax(format!("invalid percent-encoding in the URI's {key}"));
    let bytes = raw.as_bytes();
    for (at, _) in raw.match_indices('%') {
        let digits = bytes.get(at + 1..at + 3).ok_or_else(wrong)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) || digits == b"00" {
            return Err(wrong());
        }
    }
    Ok(percent_decode_str(raw).decode_utf8().map_err(|_| wrong())?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> String {
        match pairs(text) {
            Ok(pairs) => pairs.iter().map(|(k, v)| format!("{k}=<{v}>")).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    /// Both forms mean what libpq takes them to mean, quoting and escapes included.
    #[test]
    fn forms() {
        for (text, expected) in [
            ("", ""),
            ("host=a port = 5433", "host=<a> port=<5433>"),
            (r"user='o\'neil \\ x' dbname=a\ b", r"user=<o'neil \ x> dbname=<a b>"),
            ("user='' host=x", "user=<> host=<x>"),
            ("postgresql://", ""),
            ("postgres://bob:s%40c@db1:1,[::1]:2,c/my%20db?sslmode=disable&ssl=true", {
                "user=<bob> password=<s@c> host=<db1,::1,c> port=<1,2,> dbname=<my db> sslmode=<disable> sslmode=<require>"
            }),
            ("postgresql://%2Fvar%2Frun:5433/", "host=</var/run> port=<5433>"),
            ("postgresql:///x?host=/tmp", "dbname=<x> host=</tmp>"),
        ] {
            assert_eq!(joined(text), expected, "{text}");
        }
    }

    /// A broken text is refused without showing any of what may be a password.
    #[test]
    fn refusals_tell_no_secret() {
        for text in [
            "password=hush sesame",
            "password='sesame",
            "postgresql://u:sesame%zz@h/",
            "postgresql://u:sesame%00@h/",
            "postgresql://u:sesame@[::1/",
            "postgresql://u:sesame@h/?x",
        ] {
            let error = pairs(text).expect_err(text).to_string();
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}

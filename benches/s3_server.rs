//! An S3 server in memory for measurements, with the latency of a network.
//!
//! `s3-server LATENCY_MS [DIRECTORY] [--tls CERTIFICATE KEY]`: each round trip takes that long, that of a new connection too. It holds
//! what lies in the directory under `pg/`. It prints its URL, bucket and the path of its credentials as JSON, then answers each line
//! on its standard input with a line of JSON: "sizes" with the names of all objects and their bytes, every other with what it was
//! asked since the last one: requests by kind, and how many objects it holds. It ends with its input.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

#[path = "../tests/s3_server/mod.rs"]
mod s3_server;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (words, tls) = match words.as_slice() {
        [first @ .., "--tls", certificate, key] => (first, Some((Path::new(*certificate), Path::new(*key)))),
        all => (all, None),
    };
    let (latency, directory) = match words {
        [latency] => (latency, None),
        [latency, directory] => (latency, Some(Path::new(*directory))),
        _ => return Err("usage: s3-server LATENCY_MS [DIRECTORY] [--tls CERTIFICATE KEY]".into()),
    };
    let mut line = s3_server::Line::default();
    line.set_latency(Duration::from_millis(latency.parse()?) / 2);
    if let Some((certificate, key)) = tls {
        line.set_certificate(certificate, key)?;
    }
    let server = s3_server::S3Server::start_behind(line);
    server.objects.take_any_checksum();
    if let Some(directory) = directory {
        load(&server, directory, "pg")?;
    }
    let mut out = std::io::stdout();
    let place = json!({
        "endpoint": server.endpoint(),
        "bucket": s3_server::BUCKET,
        "credentials": server.credentials_file(),
        "key": s3_server::ACCESS_KEY,
        "secret": s3_server::SECRET_KEY,
    });
    writeln!(out, "{place}")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let answer = match line?.as_str() {
            "sizes" => json!({ "sizes": server.objects.sizes().into_iter().collect::<BTreeMap<_, _>>() }),
            _ => {
                let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
                for kind in server.faults.take_kinds() {
                    *kinds.entry(kind).or_default() += 1;
                }
                json!({ "requests": kinds, "objects": server.objects.count() })
            }
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// Takes up all files below a directory, with names below `prefix`.
fn load(server: &s3_server::S3Server, directory: &Path, prefix: &str) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            load(server, &entry.path(), &name)?;
        } else {
            server.objects.insert(&name, fs::read(entry.path())?);
        }
    }
    Ok(())
}

//! An S3 server in memory for measurements, with the latency of a network.
//!
//! `s3-server LATENCY_MS [DIRECTORY]` holds what lies in the directory under `pg/`. It prints its URL, bucket and the path of its
//! credentials as JSON, then, for each line on its standard input, what it was asked since the last one as JSON: requests by kind, and
//! how many objects it holds. It ends with its input.

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
    let (latency, directory) = match words.as_slice() {
        [latency] => (latency, None),
        [latency, directory] => (latency, Some(Path::new(directory))),
        _ => return Err("usage: s3-server LATENCY_MS [DIRECTORY]".into()),
    };
    let server = s3_server::S3Server::start();
    if let Some(directory) = directory {
        load(&server, directory, "pg")?;
    }
    server.faults.set_latency(Duration::from_millis(latency.parse()?));
    let mut out = std::io::stdout();
    let place = json!({
        "endpoint": server.endpoint(),
        "bucket": s3_server::BUCKET,
        "credentials": server.credentials_file(),
    });
    writeln!(out, "{place}")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        line?;
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        for kind in server.faults.take_kinds() {
            *kinds.entry(kind).or_default() += 1;
        }
        writeln!(out, "{}", json!({ "requests": kinds, "objects": server.objects.count() }))?;
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

//! An S3 server in memory for measurements, with the latency of a network.
//!
//! `s3-server LATENCY_MS` prints its URL, bucket and the path of its credentials as JSON, then, for each line on its standard input,
//! what it was asked since the last one as JSON: requests by kind, and the objects it holds. It ends with its input.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Duration;

use serde_json::json;

#[path = "../tests/s3_server/mod.rs"]
mod s3_server;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [latency] = words.as_slice() else { return Err("usage: s3-server LATENCY_MS".into()) };
    let server = s3_server::S3Server::start();
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
        writeln!(out, "{}", json!({ "requests": kinds, "objects": server.objects.names().len() }))?;
        out.flush()?;
    }
    Ok(())
}

//! Text that people and other programs write: settings files of a restored cluster, connection strings.

#![no_main]

use pitr::pgdata::settings;
use pitr::replication::conninfo::{ConnInfo, Environment};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let block = "recovery_target = 'immediate'\n";
    let once = settings::rewrite(bytes, block);
    assert_eq!(settings::rewrite(&once, block), once, "rewriting again must change nothing");
    let _ = settings::without_targets(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        // An empty environment: no service file of this machine is read.
        let _ = ConnInfo::parse_in(text, &Environment::default());
    }
});

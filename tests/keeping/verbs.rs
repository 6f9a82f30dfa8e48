//! `pitr list`, `forget` and `expire` as the tests call them, with days that go by as told.

// Each integration test is a crate of its own that compiles this module and uses a part of it.
#![allow(dead_code)]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::harness::{Finished, Run, Site};

/// The days that a mark stands, as the default is.
pub(crate) const UNDELETE_DAYS: i64 = 3;

/// How long a verb may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Ids of the backups that are not forgotten, in their order.
pub(crate) fn ids(site: &Site) -> Vec<String> {
    let listed = json(&site.pitr(&["list", "--json"]).run().ok());
    let live = listed.as_array().expect("a list").iter().filter(|backup| backup["forgotten"].is_null());
    live.map(|backup| backup["id"].as_str().expect("an id").to_owned()).collect()
}

/// What a verb said with `--json`.
pub(crate) fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

/// Forgets a backup.
pub(crate) fn forget(site: &Site, id: &str) {
    site.pitr(&["forget", "--yes", id]).run_within(LONG).ok();
}

/// `pitr expire` as if so many days had gone by.
pub(crate) fn expire(site: &Site, days: i64) -> Value {
    json(&try_expire(site, days).ok())
}

/// The same where it may fail.
pub(crate) fn try_expire(site: &Site, days: i64) -> Finished {
    let moment = Timestamp::now() + SignedDuration::from_hours(24 * days);
    site.pitr(&["expire", "--json", "--as-of", &moment.to_string()]).run_within(LONG)
}

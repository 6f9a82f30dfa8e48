//! `pitr-wal-fetch`: see [`pitr::command::fetch`].
fn main() {}

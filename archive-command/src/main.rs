//! `pitr-wal-push`: see [`pitr::command::push`].
fn main() {}

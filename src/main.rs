//! `pitr`
fn main() {}

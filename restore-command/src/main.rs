//! `pitr-wal-fetch`: see [`pitr::command::fetch`].

fn main() -> std::process::ExitCode {
    pitr::command::fetch::main()
}

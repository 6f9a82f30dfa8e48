//! `pitr-wal-push`: see [`pitr::command::push`].

fn main() -> std::process::ExitCode {
    pitr::command::push::main()
}

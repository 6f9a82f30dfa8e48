//! `pitr`: see [`pitr::command`].

fn main() -> std::process::ExitCode {
    pitr::command::main()
}

//! `ExitStatus`: every way in which a program of this project can end, and the number that says so.

use std::fmt;

/// Which program speaks: the numbers of one kind of failure differ, because PostgreSQL reads them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// `pitr`, run by people and timers.
    Pitr,
    /// `pitr-wal-push`, run as `archive_command`.
    Push,
    /// `pitr-wal-fetch`, run as `restore_command`.
    Fetch,
}

impl Program {
    /// All programs, for tables and tests.
    pub const ALL: [Program; 3] = [Program::Pitr, Program::Push, Program::Fetch];
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Program::Pitr => "pitr",
            Program::Push => "pitr-wal-push",
            Program::Fetch => "pitr-wal-fetch",
        })
    }
}

macro_rules! statuses {
    ($($(#[doc = $doc:literal])+ $name:ident = $pitr:literal, $fetch:literal;)+) => {
        /// How a program ended. The numbers are a contract with PostgreSQL and with scripts: they never change meaning.
        ///
        /// * `pitr` and `pitr-wal-push` share the first number. All are below 126: PostgreSQL counts 1 to 125 from
        ///   `archive_command` as a failed attempt and tries again, but takes more for a crash and restarts the archiver
        ///   (`shell_archive.c`, `wait_result_is_any_signal`).
        /// * `pitr-wal-fetch` uses the second. PostgreSQL reads every number from 1 to 125 of `restore_command` as "the
        ///   archive has no such file" and, in recovery without a target, opens the database there (`xlogarchive.c`). So
        ///   1 is kept for the one case in which that is certainly true; everything else is 200 or more and halts
        ///   recovery, which can be resumed.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ExitStatus {
            $($(#[doc = $doc])+ $name,)+
        }

        impl ExitStatus {
            /// All statuses in the order of their numbers.
            pub const ALL: &'static [ExitStatus] = &[$(ExitStatus::$name),+];

            /// What it says, in the words of `docs/EXIT_CODES.md`.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(ExitStatus::$name => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// The number with which `program` ends.
            #[must_use]
            pub fn number(self, program: Program) -> u8 {
                match (self, program) {
                    $((ExitStatus::$name, Program::Fetch) => $fetch,)+
                    $((ExitStatus::$name, Program::Pitr | Program::Push) => $pitr,)+
                }
            }
        }
    };
}

statuses! {
    /// Done. From `pitr-wal-push`: the file is durable in the repository. From `pitr-wal-fetch`: the file is delivered whole.
    Success = 0, 0;
    /// The answer is no: a check found something wrong, or what was asked for does not exist. From `pitr-wal-fetch`: the archive certainly has no such file.
    No = 1, 1;
    /// The command line cannot be understood.
    Usage = 2, 204;
    /// The configuration cannot be read, contradicts itself, or does not say which cluster is meant.
    Configuration = 3, 205;
    /// The repository did not answer, or answered with an error that may pass.
    Unreachable = 4, 200;
    /// There is no repository where one should be: not initialized, or not mounted.
    NoRepository = 5, 206;
    /// The repository or an object in it has a format that this version does not know.
    Format = 6, 207;
    /// No space or quota left in the repository.
    Full = 7, 208;
    /// The repository refuses access.
    Denied = 8, 209;
    /// Server and repository belong to different clusters.
    WrongCluster = 9, 203;
    /// The repository holds other content under this name (two servers write as one).
    Conflict = 10, 210;
    /// Something stored is damaged, and no good copy was found.
    Damaged = 11, 201;
    /// WAL is missing although later WAL exists.
    Gap = 12, 202;
    /// The source file is not what its name says: wrong timeline, position or length.
    NotWal = 13, 211;
    /// A file or directory on this machine could not be read or written.
    Local = 14, 212;
    /// The PostgreSQL server cannot be reached, or broke off the connection.
    Server = 15, 213;
    /// The PostgreSQL server refuses: authentication, rights, or settings that do not allow it.
    Refused = 16, 214;
    /// The server's version, or something it uses, is not supported.
    Unsupported = 17, 215;
    /// A deadline passed.
    Timeout = 18, 216;
    /// The asked moment cannot be reached with the backups and the WAL at hand.
    Target = 19, 217;
    /// The directory to restore into is not free: files, a running server, or another cluster's data.
    Occupied = 20, 218;
    /// The backup is complete and stored, but pages in it are damaged on the server.
    BadPages = 21, 219;
    /// The restored server did not start, did not stop where it was asked to, or met pages that are not as they should be.
    Recovery = 22, 220;
    /// The question was answered with no, or could not be asked; nothing was changed.
    Declined = 23, 221;
    /// Stopped by a signal. From `pitr-wal-fetch`: 143, which PostgreSQL takes for the SIGTERM of its own shutdown.
    Interrupted = 24, 143;
    /// A fault of the program itself. Please report it.
    Internal = 70, 250;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PostgreSQL retries the archiver only on 1 to 125, and ends recovery quietly on 1 to 125: no failure of push may
    /// lie above, and none of fetch below, except the one certain "not in the archive".
    #[test]
    fn contract_with_postgresql() {
        for &status in ExitStatus::ALL {
            let (push, fetch) = (status.number(Program::Push), status.number(Program::Fetch));
            assert_eq!(push, status.number(Program::Pitr));
            match status {
                ExitStatus::Success => assert_eq!((push, fetch), (0, 0)),
                ExitStatus::No => assert_eq!((push, fetch), (1, 1)),
                ExitStatus::Interrupted => assert_eq!((push, fetch), (24, 143)),
                _ => assert!((1..=125).contains(&push) && push != 101 && fetch >= 200, "{status:?} {push} {fetch}"),
            }
        }
    }

    /// A number means one thing.
    #[test]
    fn numbers_are_distinct() {
        for program in Program::ALL {
            let mut numbers: Vec<u8> = ExitStatus::ALL.iter().map(|status| status.number(program)).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), ExitStatus::ALL.len(), "{program}");
        }
    }

    /// `docs/EXIT_CODES.md` has exactly these statuses, with these numbers and words.
    #[test]
    fn documented() {
        let document = include_str!("../../docs/EXIT_CODES.md");
        let rows: Vec<&str> =
            document.lines().filter(|line| line.starts_with("| ") && !line.contains("---")).skip(1).collect();
        let expected: Vec<String> = ExitStatus::ALL
            .iter()
            .map(|status| {
                let (pitr, fetch) = (status.number(Program::Pitr), status.number(Program::Fetch));
                format!("| {pitr} | {fetch} | {} |", status.meaning())
            })
            .collect();
        assert_eq!(rows, expected);
    }
}

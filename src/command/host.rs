//! What only the host knows: its name and the time. For records of who did what when.

use crate::wal::PgTime;

/// The host's name, as the kernel has it.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Now, by this host's clock.
#[must_use]
pub fn now() -> PgTime {
    PgTime::from_timestamp(jiff::Timestamp::now())
}

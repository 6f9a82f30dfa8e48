//! Leaving PostgreSQL's call: the process that fetches ahead outlives it, and must not hold on to what is the server's.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Leaves the caller's session, so that signals for it do not come here, and closes what was inherited: before 16, PostgreSQL's commands
/// inherit its open files, and a dropped table would keep its space.
///
/// To be called first of all, before this process opens anything.
pub(super) fn detach() -> io::Result<()> {
    // Refused only to the leader of a process group, which a child that was just started is not.
    let _ = rustix::process::setsid();
    let listed = fs::read_dir("/proc/self/fd")?.flatten();
    let inherited: Vec<RawFd> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in inherited.into_iter().filter(|number| *number > 2) {
        // Of the listing itself, which is closed again, and of what another thread closed meanwhile.
        if fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
            continue;
        }
        // SAFETY: the process has one thread and has opened nothing that is still open, so each open descriptor above 2 was
        // inherited, and nobody here owns it.
        #[allow(unsafe_code)]
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(())
}

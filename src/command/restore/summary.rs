//! What was done, and what to do next. The last line tells clone from take-over.

use std::fmt::Write as _;

use indicatif::HumanBytes;

use super::Args;
use super::databases::Databases;
use super::ground::Ground;
use super::start::Reached;
use super::write::Written;
use crate::pgdata::quote::shell_word;
use crate::wal::Xid;

/// The summary as text.
pub(super) fn text(
    args: &Args,
    ground: &Ground,
    databases: Option<&Databases>,
    written: &Written,
    reached: Option<&Reached>,
) -> String {
    let target = shell_word(&ground.target.to_string_lossy());
    let mut text = format!("Restored {} files, {}", written.files, HumanBytes(written.bytes));
    if written.trusted_bytes > 0 {
        let (kept, trusted) = (HumanBytes(written.kept_bytes), HumanBytes(written.trusted_bytes));
        let _ = write!(text, " ({kept} were there already, {trusted} of it trusted and not read)");
    } else if written.kept_bytes > 0 {
        let _ = write!(text, " ({} were there already)", HumanBytes(written.kept_bytes));
    }
    let _ = writeln!(text, ", to {target}.");
    match reached {
        None => {
            let _ =
                writeln!(text, "The server recovers when it is started there; then its log tells where it stopped.");
        }
        Some(reached) => {
            let words = reached.replay.stopped.as_deref().unwrap_or("recovery went to the end of the archived WAL");
            let _ = writeln!(text, "The server: {words}.");
            if let Some(timeline) = reached.replay.new_timeline {
                let _ =
                    writeln!(text, "It is open for writing on timeline {timeline}. Its log: {}", reached.log.display());
            }
            if !reached.replay.prepared.is_empty() {
                let _ = writeln!(text, "NOTE: {}", still_prepared(&reached.replay.prepared));
            }
            if let Some((socket, port)) = &reached.socket {
                let _ = writeln!(text, "Connect: psql -h {} -p {port}", shell_word(&socket.to_string_lossy()));
            }
            let pg_ctl = shell_word(&reached.binaries.join("pg_ctl").to_string_lossy());
            let _ =
                writeln!(text, "Stop it: {pg_ctl} stop -D {target}   (the next start uses its own addresses and log)");
        }
    }
    match args.action {
        super::Action::Promote => {}
        super::Action::Pause => {
            let _ = writeln!(
                text,
                "At the target it waits, read-only: SELECT pg_wal_replay_resume() opens it for writing."
            );
        }
        super::Action::Shutdown => {
            let _ = writeln!(
                text,
                "At the target it shuts down, and does so at each start until recovery_target_action is changed in \
                 postgresql.auto.conf."
            );
        }
    }
    let afterwards = databases.map(Databases::afterwards).unwrap_or_default();
    if !afterwards.is_empty() {
        text.push_str(&afterwards);
        text.push_str(
            "CLONE of some databases: it does not archive (archive_mode = off), and cannot become the cluster.\n",
        );
        return text;
    }
    text.push_str(if args.take_over {
        "TAKE-OVER: it archives on, on a timeline of its own. Keep the old server stopped; to go back, stop this one and \
         start the old one.\n"
    } else {
        "CLONE: it does not archive (archive_mode = off). To make it the cluster: ALTER SYSTEM RESET archive_mode, ALTER \
         SYSTEM RESET synchronous_standby_names, and restart it, with the old server stopped for good.\n"
    });
    text
}

/// What prepared transactions that are open mean, and what to do about them.
pub(super) fn still_prepared(xids: &[Xid]) -> String {
    let shown: Vec<String> = xids.iter().take(10).map(|xid| xid.0.to_string()).collect();
    let more = if xids.len() > shown.len() { ", ..." } else { "" };
    let (what, holds) = match xids.len() {
        1 => ("transaction", "it holds its locks"),
        _ => ("transactions", "they hold their locks"),
    };
    format!(
        "prepared {what} {}{more} open at that point: {holds} until COMMIT PREPARED or ROLLBACK PREPARED (pg_prepared_xacts has \
         the names)",
        shown.join(", ")
    )
}

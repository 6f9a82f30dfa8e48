//! Catching up: what one of several repositories lacks is brought there from another, a little with each call.
//!
//! The note in the spool says where to begin, the listings of both what is lacking. A call spends a bounded time on it once its own
//! file is archived, so a repository that was away for a day is caught up while archiving goes on. A timeline is struck from the note when
//! nothing of it is lacking any more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::targets::Targets;
use crate::command::call::Open;
use crate::repository::wal::StoredAs;
use crate::repository::{RepositoryError, ServerRepository};
use crate::spool::Spool;

/// How long a call goes on beginning to bring what is lacking.
const BUDGET: Duration = Duration::from_secs(2);

/// Objects that are brought at the same time.
const THREADS: usize = 3;

/// Brings what is lacking, as far as the time goes. Whatever fails is left to a later call.
pub(super) fn catch_up(targets: &Targets, spool: &Spool, left: Duration) {
    let until = Instant::now() + BUDGET.min(left / 4);
    let present = targets.present();
    for late in &present {
        let noted = spool.behind(&late.name);
        let mut rest = noted.clone();
        for (timeline, since) in noted.timelines() {
            // One that is away may hold what no other does.
            let mut complete = targets.are_all_present();
            for source in present.iter().filter(|source| source.name != late.name) {
                let lacking = source.server.lacking_in(&late.server, timeline, since);
                complete &= lacking.is_ok_and(|lacking| bring(source, &late.server, &lacking.objects, until));
            }
            if complete {
                rest.remove(timeline);
            }
        }
        // Without the new note the next call compares the listings again.
        let _ = spool.replace_behind(&late.name, &noted, &rest);
    }
}

/// Brings these objects, in order. False if not all of them are there then.
fn bring(source: &Open, target: &ServerRepository, objects: &[StoredAs], until: Instant) -> bool {
    let next = AtomicUsize::new(0);
    let complete = AtomicBool::new(true);
    let work = || {
        while let Some(object) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
            let copied = if Instant::now() < until { Some(source.server.copy_to(target, *object)) } else { None };
            match copied {
                Some(Ok(_)) => continue,
                // One that cannot be used must not keep the others from getting there.
                Some(Err(RepositoryError::Damaged { .. } | RepositoryError::Conflict(_))) => {
                    complete.store(false, Ordering::Relaxed);
                }
                Some(Err(_)) | None => return complete.store(false, Ordering::Relaxed),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..THREADS.min(objects.len()) {
            scope.spawn(work);
        }
        work();
    });
    complete.into_inner()
}

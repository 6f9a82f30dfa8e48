//! The process that fetches ahead.
//!
//! It keeps so many segments ready as `look_ahead` says, fetches several at once, and goes when the recovery is over, the server is gone,
//! or nobody took anything for long. It says nothing and promises nothing: what it cannot fetch, the segment's own call will ask
//! for, and report. One process works for a recovery; a second one finds the room locked.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::course::Course;
use super::detach::detach;
use super::{Recovering, scope};
use crate::command::call::{Open, Server};
use crate::command::fetch::delivery::{Delivery, Outcome};
use crate::command::fetch::fall_over;
use crate::command::several::gather;
use crate::config::Place;
use crate::repository::ServerRepository;
use crate::spool::{AheadRoom, Spool};
use crate::wal::{SegmentName, SegmentSize, WalFileName};

/// Segments that are fetched at once.
const THREADS: u32 = 4;

/// Most bytes that are kept ready: of large segments fewer than `look_ahead` says.
const READY_BYTES: u64 = 256 << 20;

/// How soon it is seen that a segment was taken, and that the recovery is over.
const GLANCE: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(50);

/// A replay that takes nothing for so long is paused, or waits for something else.
const IDLE: Duration = Duration::from_secs(600);

/// How long several repositories have to be opened.
const OPENED_WITHIN: Duration = Duration::from_secs(3);

/// A call that looks whether the room is locked may be in the way for a moment.
const LOCK_TRIES: u32 = 20;

/// Runs in a process of its own, until there is no more to do. `find` finds the server as every call does.
pub(in crate::command::fetch) fn run<E>(find: impl FnOnce() -> Result<Server, E>) -> bool {
    if detach().is_err() {
        return false;
    }
    let Ok(server) = find().map(Arc::new) else { return false };
    // Relative paths were read; the data directory must not be held.
    let left = std::env::set_current_dir("/").is_ok();
    left && fill(&server).is_some()
}

fn fill(server: &Arc<Server>) -> Option<()> {
    let directory = server.data_directory.as_ref()?;
    let recovering = Recovering::of(&directory.path)?;
    let size = directory.control.segment_size;
    let spool = Spool::open_or_make(&server.config.spool, server.system_identifier).ok()?;
    let room = spool.make_ahead_room(&scope(server, &directory.path)).ok()?;
    let _lock = (0..LOCK_TRIES).find_map(|_| {
        let lock = room.lock().ok().flatten();
        if lock.is_none() {
            std::thread::sleep(GLANCE);
        }
        lock
    })?;
    room.announce(None);
    let places = server.config.repositories();
    let opened = match places.as_slice() {
        [only] => vec![server.open_noted(only).ok()?],
        several => open_several(server, several),
    };
    // Where none can be opened there is nothing to go by.
    opened.first()?;
    let listed = opened.iter().map(|open| open.server.clone()).collect();
    let most = u32::try_from(READY_BYTES / size.bytes()).unwrap_or(u32::MAX).max(2).min(server.config.look_ahead);
    let fetcher = Fetcher {
        server,
        only: opened.into_iter().next().filter(|_| places.len() == 1),
        listed,
        room,
        size,
        most: most as usize,
        state: Mutex::new(State::new(size)),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(most) {
            scope.spawn(|| fetcher.work());
        }
        fetcher.watch(&recovering);
    });
    fetcher.room.remove();
    Some(())
}

/// Those of several that answer soon.
fn open_several(server: &Arc<Server>, places: &[Place]) -> Vec<Open> {
    let opener = Arc::clone(server);
    let answers = gather(places.to_vec(), move |place| opener.open_noted(&place), |_| true, OPENED_WITHIN);
    answers.into_iter().flatten().flatten().collect()
}

struct Fetcher<'a> {
    server: &'a Arc<Server>,
    /// The repository, if there is but one.
    only: Option<Open>,
    /// Those that tell which segments there are.
    listed: Vec<ServerRepository>,
    room: AheadRoom,
    size: SegmentSize,
    /// Segments that are kept ready.
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    course: Course,
    /// Which of the courses so far it is.
    courses: u64,
    coming: BTreeSet<SegmentName>,
    ready: BTreeSet<SegmentName>,
    /// The recovery has come here by itself: what lies before on the same timeline is of no use any more.
    from: Option<SegmentName>,
    /// When a segment was taken or wanted.
    used: Instant,
    over: bool,
}

impl State {
    fn new(size: SegmentSize) -> State {
        State {
            course: Course::nowhere(size),
            courses: 0,
            coming: BTreeSet::new(),
            ready: BTreeSet::new(),
            from: None,
            used: Instant::now(),
            over: false,
        }
    }
}

impl State {
    /// A segment is ready, or coming, or will be; else the way to it is another one.
    fn leads_to(&mut self, segment: SegmentName) -> bool {
        self.ready.contains(&segment) || self.coming.contains(&segment) || self.course.skip_to(segment)
    }

    fn overtaken(&self, segment: SegmentName) -> bool {
        self.from.is_some_and(|from| segment.timeline() == from.timeline() && segment < from)
    }
}

impl Fetcher<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of the threads that fetch.
    fn work(&self) {
        while let Some((segment, course)) = self.next() {
            let fetched = self.fetch(segment);
            let mut state = self.state();
            state.coming.remove(&segment);
            if course != state.courses || state.overtaken(segment) {
                // Meanwhile the recovery asked for something else.
                self.room.remove_segment(segment);
            } else if fetched {
                state.ready.insert(segment);
            } else {
                state.course = Course::nowhere(self.size);
            }
            self.changed.notify_all();
        }
    }

    fn fetch(&self, segment: SegmentName) -> bool {
        let target = self.room.path().join(segment.to_string());
        let fetched =
            Delivery::new(self.server, WalFileName::Segment(segment), &target).map(Arc::new).and_then(|delivery| {
                match &self.only {
                    Some(open) => delivery.attempt_from(open),
                    None => fall_over::attempt_unconfirmed(&delivery),
                }
            });
        self.room.end(segment);
        fetched.is_ok_and(|outcome| outcome == Outcome::Delivered)
    }

    /// The next segment to fetch, when there is room for it, and the course that it belongs to; `None` when all is over.
    fn next(&self) -> Option<(SegmentName, u64)> {
        let mut state = self.state();
        loop {
            if state.over {
                return None;
            }
            self.notice_taken(&mut state);
            if state.ready.len() + state.coming.len() < self.most
                && let Ok(Some(segment)) = state.course.next(&self.listed)
            {
                state.coming.insert(segment);
                // A call finds it either coming or next.
                let _ = self.room.begin(segment);
                self.room.announce(state.course.upcoming());
                return Some((segment, state.courses));
            }
            if state.course.has_ended() {
                self.room.announce(None);
            }
            let pause = if state.course.has_ended() { LOOK } else { GLANCE };
            state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn notice_taken(&self, state: &mut State) {
        let before = state.ready.len();
        state.ready.retain(|segment| self.room.holds(*segment, self.size.bytes()));
        if state.ready.len() < before {
            state.used = Instant::now();
        }
    }

    /// Follows what the calls want, until it is over.
    fn watch(&self, recovering: &Recovering) {
        let mut followed: Option<(SegmentName, SystemTime)> = None;
        loop {
            let wanted = self.room.wanted();
            let mut state = self.state();
            if wanted != followed
                && let Some((segment, _)) = wanted
            {
                self.follow(&mut state, segment);
            }
            followed = wanted;
            let over = !recovering.goes_on() || !recovering.server_runs() || state.used.elapsed() > IDLE;
            if over {
                state.over = true;
                self.changed.notify_all();
                return;
            }
            drop(state);
            std::thread::sleep(LOOK);
        }
    }

    /// Goes on from this segment. A call had to fetch the one before it by itself: it was quicker, or wants something else than what is ready.
    fn follow(&self, state: &mut State, segment: SegmentName) {
        state.used = Instant::now();
        if state.leads_to(segment) {
            state.from = Some(segment);
            // Those that were not whole, too.
            self.room.keep_only(|segment| !state.overtaken(segment));
            self.notice_taken(state);
        } else {
            self.room.keep_only(|_| false);
            state.ready.clear();
            state.courses += 1;
            state.from = None;
            state.course = Course::from(segment, self.size);
        }
        self.room.announce(state.course.upcoming());
        self.changed.notify_all();
    }
}

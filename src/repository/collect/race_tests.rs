//! Collections, backups, restores and people at the same time: a scheduler lets one of them take one step at the store after the
//! other, in an order that a seed gives, while days pass.

use std::fmt::{self, Debug};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::tests::{
    AGE, BEGIN, DAY, HOUR, author, backup, commit, forget, id, open, prove, put_pack, put_wal, read_through, record,
    rules,
};
use super::*;
use crate::chunk::Place;
use crate::repository::{Remembering, Repository, RepositoryError, ServerRepository};
use crate::storage::{Key, Listed, Memory, NewObject, Put, Storage, StorageError, Suffix};

/// How many orders are tried, unless `PITR_TEST_ORDERS` says otherwise.
const ORDERS: u64 = 400;

/// Whose turn it is.
#[derive(Default)]
struct Turns {
    state: Mutex<State>,
    /// Tells the scheduler.
    changed: Condvar,
    /// Tells the actors.
    yours: [Condvar; 8],
}

#[derive(Default)]
struct State {
    /// Actors that wait for their turn.
    waiting: BTreeMap<usize, Wait>,
    /// The one that may take its step.
    turn: Option<usize>,
    running: usize,
    now: i64,
    /// The scheduler is through: everybody goes on without it.
    free: bool,
}

/// What an actor waits for.
#[derive(Clone, Copy)]
struct Wait {
    /// It has nothing to do before this moment.
    from: i64,
    /// What it does may take long, but no longer than this, for the rules to hold.
    until: Option<i64>,
    /// The store is slow with it: others mostly come first.
    slow: bool,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> PgTime {
        PgTime(self.lock().now)
    }

    /// Waits until it is this actor's turn.
    fn step(&self, actor: usize, brief: bool, slow: bool) {
        let state = self.lock();
        let wait = Wait { from: state.now, until: brief.then(|| state.now + HOUR), slow };
        self.wait(state, actor, wait);
    }

    /// Waits until this moment, and until it is this actor's turn.
    fn sleep(&self, actor: usize, until: i64) {
        self.wait(self.lock(), actor, Wait { from: until, until: None, slow: false });
    }

    fn wait(&self, mut state: MutexGuard<'_, State>, actor: usize, wait: Wait) {
        if state.free {
            return;
        }
        state.waiting.insert(actor, wait);
        self.changed.notify_one();
        while state.turn != Some(actor) {
            state = self.yours[actor].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.turn = None;
        state.waiting.remove(&actor);
        self.changed.notify_one();
    }

    fn end(&self) {
        self.lock().running -= 1;
        self.changed.notify_one();
    }

    /// Gives turns until all actors are through. From time to time so much time goes by, and up to twenty times more.
    fn schedule(&self, mut random: impl FnMut() -> u64, pause: i64) {
        let mut state = self.lock();
        loop {
            while state.turn.is_some() || state.waiting.len() < state.running {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.running == 0 {
                state.free = true;
                return;
            }
            let latest = state.waiting.values().filter_map(|wait| wait.until).min().unwrap_or(i64::MAX) - 1;
            if random().is_multiple_of(6) {
                let passed = state.now + i64::try_from(random() % 20).expect("small") * pause;
                state.now = passed.min(latest).max(state.now);
            }
            let quick = |wait: &&Wait| !wait.slow;
            let soonest = state.waiting.values().filter(quick).map(|wait| wait.from).min();
            // Whoever sleeps may wake while the store is slow.
            let is_slow = !random().is_multiple_of(24);
            let has_awake = state.waiting.values().any(|wait| wait.from <= state.now && !(is_slow && wait.slow));
            if let Some(soonest) = soonest.filter(|soonest| !has_awake && *soonest <= latest) {
                state.now = soonest.max(state.now);
            }
            let awake = |is_slow: bool| {
                let awake = state.waiting.iter().filter(|(_, wait)| wait.from <= state.now && !(is_slow && wait.slow));
                awake.map(|(actor, _)| *actor).collect::<Vec<usize>>()
            };
            let awake = Some(awake(is_slow)).filter(|awake| !awake.is_empty()).unwrap_or_else(|| awake(false));
            let at = usize::try_from(random()).unwrap_or(0) % awake.len();
            state.turn = awake.get(at).copied();
            state.turn.into_iter().for_each(|actor| self.yours[actor].notify_one());
        }
    }
}

/// A store each of whose steps waits for its turn.
#[derive(Clone)]
struct Stepped {
    inner: Memory,
    actor: usize,
    /// How long writes of this seed's store may take.
    kind: Kind,
    turns: Arc<Turns>,
}

impl Debug for Stepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "actor {}", self.actor)
    }
}

impl Stepped {
    fn take(&self, key: &Key, writes: bool) {
        self.turns.step(self.actor, writes && key.as_str().contains("/doomed/"), writes && self.kind.is_slow());
    }

    /// Manifests must not take long to go.
    fn take_to_delete(&self, key: &Key) {
        let brief = key.as_str().contains("/doomed/") || key.as_str().ends_with("/manifest");
        self.turns.step(self.actor, brief, self.kind.is_slow());
    }
}

struct NewSteppedObject {
    storage: Stepped,
    key: Key,
    inner: Box<dyn NewObject>,
}

impl Write for NewSteppedObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl NewObject for NewSteppedObject {
    fn publish(self: Box<Self>) -> Result<Put, StorageError> {
        self.storage.take(&self.key, true);
        self.inner.publish()
    }
}

impl Storage for Stepped {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn threads_for(&self, _: usize) -> usize {
        1
    }

    fn create(&self, key: &Key) -> Result<Box<dyn NewObject>, StorageError> {
        let inner = self.inner.create(key)?;
        Ok(Box::new(NewSteppedObject { storage: self.clone(), key: key.clone(), inner }))
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.take(key, false);
        self.inner.get(key, limit_bytes)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.take(key, false);
        self.inner.get_range(key, range)
    }

    fn get_suffix(&self, key: &Key, bytes: u64) -> Result<Suffix, StorageError> {
        self.take(key, false);
        self.inner.get_suffix(key, bytes)
    }

    fn open(&self, key: &Key) -> Result<Box<dyn Read + Send>, StorageError> {
        self.take(key, false);
        self.inner.open(key)
    }

    fn size(&self, key: &Key) -> Result<Option<u64>, StorageError> {
        self.take(key, false);
        self.inner.size(key)
    }

    fn list(&self, folder: &Key) -> Result<Vec<Listed>, StorageError> {
        self.take(folder, false);
        self.inner.list(folder)
    }

    fn settle(&self, key: &Key) -> Result<(), StorageError> {
        self.inner.settle(key)
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.take_to_delete(key);
        self.inner.delete(key)
    }
}

/// What one actor found.
#[derive(Debug, PartialEq)]
enum Told {
    /// A backup that is complete.
    Complete(BackupId),
    /// A backup that gave up, as the rules say.
    GaveUp,
    Remembered,
    Nothing,
}

/// One story: a parent that is forgotten while backups build on it, restores read it, and two hosts collect.
struct Story {
    seed: u64,
    memory: Memory,
    turns: Arc<Turns>,
    parent: (BackupId, Place),
}

impl Story {
    fn server(&self, actor: usize) -> ServerRepository {
        let (kind, turns) = (Kind::of(self.seed), Arc::clone(&self.turns));
        let storage = Stepped { inner: self.memory.clone(), actor, kind, turns };
        let known = Repository::open(Arc::new(self.memory.clone())).expect("a repository");
        let repository = Repository::known(Arc::new(storage), known.id().clone());
        repository.cluster(&"main".parse().expect("a name")).server(SystemIdentifier(7))
    }

    /// A backup that builds on the parent if that may be done, and sends its data for as long as `send` says, given when it began.
    fn back_up(&self, actor: usize, send: impl FnOnce(i64)) -> Told {
        let server = self.server(actor);
        let begun = self.turns.now().0;
        let new = id(begun, u32::try_from(100 + actor).expect("small"));
        let live = server.live_backups().expect("listed").iter().any(|info| info.id == self.parent.0);
        let dooms = server.doomed().expect("read");
        let usable = live && !dooms.has_pack(PackId { backup: self.parent.0, number: 0 });
        let parents: Vec<_> = usable.then_some(self.parent).into_iter().collect();
        let place = put_pack(&server, new).expect("stored");
        send(begun);
        // As the verb does.
        if self.turns.now().0 >= begun + AGE {
            return Told::GaveUp;
        }
        match commit(&server, new, place, &parents, 30, &|| self.turns.now()) {
            Ok(()) => Told::Complete(new),
            Err(RepositoryError::Doomed { .. } | RepositoryError::Late { .. }) => Told::GaveUp,
            Err(error) => panic!("{error}"),
        }
    }

    fn restore(&self, actor: usize) -> Told {
        let server = self.server(actor);
        let begun = self.turns.now().0;
        if !server.live_backups().expect("listed").iter().any(|info| info.id == self.parent.0) {
            return Told::Nothing;
        }
        let read = read_through(&server, self.parent.0);
        assert!(read.is_ok() || self.turns.now().0 >= begun + AGE, "a restore lost what it reads: {read:?}");
        Told::Nothing
    }

    fn collect(&self, actor: usize, runs: usize) -> Told {
        let server = self.server(actor);
        for run in 0..runs {
            if Kind::of(self.seed) == Kind::Edge && run > 0 {
                let dooms = server.doomed().expect("read");
                let due = dooms.marks.iter().map(|(_, doom)| doom.due.0).min();
                due.into_iter().for_each(|due| self.turns.sleep(actor, due));
            }
            let rules = rules(self.turns.now().0, None);
            let plan = server.plan_collection(&record(), &rules).expect("planned");
            server.collect(&plan, &|| self.turns.now(), &|| true, &mut |_| {}).expect("collected");
        }
        Told::Nothing
    }

    fn forget(&self, actor: usize) -> Told {
        forget(&self.server(actor), self.parent.0, self.turns.now().0);
        Told::Nothing
    }

    fn remember(&self, actor: usize) -> Told {
        let server = self.server(actor);
        match server.remember(self.parent.0, &author(self.turns.now().0)).expect("said") {
            Remembering::Done => Told::Remembered,
            Remembering::TooLate => Told::Nothing,
        }
    }

    /// Everybody at once, in the order of the seed; what they found.
    fn play(&self) -> Vec<Told> {
        let seed = self.seed;
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 16
        };
        type Act<'a> = Box<dyn FnOnce(usize) -> Told + Send + 'a>;
        let mut acts: Vec<Act<'_>> = match Kind::of(seed) {
            Kind::Due => vec![
                Box::new(|actor| self.collect(actor, 1)),
                Box::new(|actor| {
                    // As long as it takes to plan and to begin, more or less.
                    (0..seed / KINDS % 40).for_each(|_| self.turns.step(actor, false, false));
                    self.remember(actor)
                }),
            ],
            Kind::Forgotten | Kind::Live => vec![
                Box::new(|actor| {
                    // It takes days.
                    self.back_up(actor, |_| (0..seed / KINDS % 24).for_each(|_| self.turns.step(actor, false, false)))
                }),
                Box::new(|actor| self.collect(actor, 3)),
                Box::new(|actor| self.restore(actor)),
            ],
            Kind::Edge => vec![
                Box::new(|actor| {
                    // As long as it may, but for some minutes.
                    let left = i64::try_from(seed / KINDS % 12).expect("small") * HOUR / 60 + 1;
                    self.back_up(actor, |begun| self.turns.sleep(actor, begun + AGE - left))
                }),
                Box::new(|actor| {
                    (0..seed / KINDS % 12).for_each(|_| self.turns.step(actor, false, false));
                    self.forget(actor);
                    self.collect(actor, 2)
                }),
            ],
        };
        if seed.is_multiple_of(2) {
            acts.push(Box::new(|actor| self.collect(actor, 2)));
        }
        match Kind::of(seed) {
            Kind::Due | Kind::Edge => {}
            Kind::Forgotten => acts.push(Box::new(|actor| self.remember(actor))),
            Kind::Live => acts.push(Box::new(|actor| self.forget(actor))),
        }
        self.turns.lock().running = acts.len();
        std::thread::scope(|scope| {
            let turns = &self.turns;
            let acting = |(actor, act): (usize, Act<'_>)| {
                let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(actor)));
                turns.end();
                told
            };
            let threads: Vec<_> = acts.into_iter().enumerate().map(|it| scope.spawn(move || acting(it))).collect();
            turns.schedule(random, if Kind::of(seed) == Kind::Edge { HOUR / 60 } else { HOUR });
            let told = threads.into_iter().map(|thread| thread.join().expect("it is caught"));
            told.map(|told| told.unwrap_or_else(|_| panic!("seed {seed}"))).collect()
        })
    }
}

/// How a story begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The parent is there.
    Live,
    /// It is forgotten, and marked in some.
    Forgotten,
    /// Its mark is due.
    Due,
    /// It is there, and goes at about the time at which the longest backup that is allowed becomes complete.
    Edge,
}

/// How many kinds there are, each as often as it is listed.
const KINDS: u64 = 5;

impl Kind {
    /// Writes wait while others do many steps.
    fn is_slow(self) -> bool {
        matches!(self, Kind::Edge | Kind::Due)
    }

    fn of(seed: u64) -> Kind {
        match seed % KINDS {
            0 | 1 => Kind::Live,
            2 => Kind::Forgotten,
            3 => Kind::Due,
            _ => Kind::Edge,
        }
    }
}

fn story(seed: u64) -> Story {
    let memory = Memory::default();
    let server = open(Arc::new(memory.clone()));
    put_wal(&server, 1..=4);
    let parent = backup(&server, BEGIN, 2, &[]);
    backup(&server, BEGIN + DAY, 3, &[]);
    let mut now = BEGIN + 2 * DAY;
    if matches!(Kind::of(seed), Kind::Forgotten | Kind::Due) {
        forget(&server, parent.0, now);
        if Kind::of(seed) == Kind::Due || seed % (2 * KINDS) == 2 {
            super::tests::collect(&server, &rules(now, None));
        }
        if Kind::of(seed) == Kind::Due {
            now += AGE;
        }
    }
    let turns = Arc::new(Turns::default());
    turns.lock().now = now;
    Story { seed, memory, turns, parent }
}

/// Promise: in whatever order the steps come, what became complete is whole and stays so, what was remembered is whole, a restore
/// does not lose what it reads, and in the end only what is needed is there.
#[test]
fn any_order() {
    let (mut complete, mut gave_up, mut remembered, mut removed) = (0, 0, 0, 0);
    let orders = std::env::var("PITR_TEST_ORDERS").ok().and_then(|text| text.parse().ok()).unwrap_or(ORDERS);
    for seed in 0..orders {
        let story = story(seed);
        let told = story.play();
        let server = open(Arc::new(story.memory.clone()));
        let live = prove(&server);
        for told in told {
            match told {
                Told::Complete(id) => {
                    complete += 1;
                    assert!(live.contains(&id), "seed {seed}");
                }
                Told::Remembered => {
                    remembered += 1;
                    assert!(live.contains(&story.parent.0), "seed {seed}");
                }
                Told::GaveUp => gave_up += 1,
                Told::Nothing => {}
            }
        }
        let mut now = story.turns.now().0;
        for _ in 0..4 {
            now += AGE;
            super::tests::collect(&server, &rules(now, None));
            assert_eq!(prove(&server), live, "seed {seed}");
        }
        removed += u64::from(!server.is_complete(story.parent.0).expect("tells"));
        let references = server.references(&live).expect("read");
        let packs = server.packs().expect("listed");
        assert!(packs.iter().all(|pack| references.contains(pack.id)), "seed {seed}: something is left");
        assert_eq!(server.backup_folders().expect("listed"), live, "seed {seed}: something is left");
    }
    // The orders are worth their time only if all of these come about.
    assert!(
        complete > 30 && gave_up > 3 && remembered > 3 && removed > 50,
        "{complete} {gave_up} {remembered} {removed}"
    );
}

//! Every damage is found and named, and what is said to be unaffected really is.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Random, Run, Server, Site, newest, seed, small, wait_for};
use crate::{LONG, backups, findings, promote, standby, those, verify};

/// A cluster with three backups (the second with a tail, the third on timeline 2) and a word and a restore point behind each.
struct World {
    site: Site,
    // Its WAL is archived; it need not be asked any more.
    _standby: Server,
    /// Ids of the backups.
    backups: Vec<String>,
}

/// What is done to an object: false removes it.
type Change = Box<dyn FnOnce(&mut Vec<u8>) -> bool>;
/// The kind of finding, the object, and what is done to it.
type Row = (&'static str, PathBuf, Change);

impl World {
    fn new() -> World {
        let mut site = Site::with(&newest(), small(), "");
        site.server.run("CREATE TABLE words(word text); CREATE TABLE big AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n");
        site.backup();
        let standby = standby(&site);
        step(&site.server, "one");
        let streamed = ["backup", "--full", "--wal", "stream"];
        site.server.run("CHECKPOINT");
        site.pitr(&streamed).env("PITR_CONNINFO", standby.conninfo()).run_within(LONG).ok();
        step(&site.server, "two");
        promote(&mut site, &standby);
        step(&standby, "three");
        site.pitr(&["backup", "--full"]).env("PITR_CONNINFO", standby.conninfo()).run_within(LONG).ok();
        step(&standby, "four");
        let backups = backups(&site);
        assert_eq!(backups.len(), 3);
        World { site, _standby: standby, backups }
    }

    fn path(&self, part: &str) -> PathBuf {
        let found = those(&self.site.repository(), part);
        found.into_iter().next().unwrap_or_else(|| panic!("no object has {part} in its path"))
    }

    /// All complete segments.
    fn segments(&self) -> Vec<PathBuf> {
        those(&self.site.repository(), "/wal/0000").into_iter().filter(|path| file_name(path).len() == 24).collect()
    }

    /// Changes an object while `check` looks.
    fn with(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>) -> bool, check: impl FnOnce(&World)) {
        let good = fs::read(path).expect("the object is there");
        let mut bad = good.clone();
        match change(&mut bad) {
            true => fs::write(path, &bad).expect("the object can be damaged"),
            false => fs::remove_file(path).expect("the object can be removed"),
        }
        check(self);
        self.site.dir.write(path, &good);
    }

    /// Changes several objects at once, and verifies: each must be told of as what it is.
    fn all_found(&self, status: i32, rows: Vec<Row>) {
        let good: Vec<Vec<u8>> = rows.iter().map(|row| fs::read(&row.1).expect("the object is there")).collect();
        let wanted: Vec<(&str, PathBuf)> = rows.iter().map(|(kind, path, _)| (*kind, path.clone())).collect();
        for ((_, path, change), good) in rows.into_iter().zip(&good) {
            let mut bad = good.clone();
            match change(&mut bad) {
                true => fs::write(path, &bad).expect("the object can be damaged"),
                false => fs::remove_file(path).expect("the object can be removed"),
            }
        }
        let (code, document, said) = verify(&self.site, &[]);
        for (kind, path) in &wanted {
            assert!(self.is_told(&document, path, kind), "{} is not told of as {kind}: {said}", path.display());
        }
        assert_eq!(code, status, "{said}");
        for ((_, path), good) in wanted.iter().zip(&good) {
            self.site.dir.write(path, good);
        }
    }

    /// Whether a finding of this kind is about an object.
    fn is_told(&self, document: &Value, object: &Path, kind: &str) -> bool {
        let name = object.strip_prefix(self.site.repository()).expect("below it").to_string_lossy().into_owned();
        findings(document).iter().any(|finding| {
            finding["kind"] == kind
                && (finding["object"] == name.as_str() || finding.to_string().contains(file_name(object)))
        })
    }

    /// Verifies; one of the findings must be about `object`. Gives the document.
    fn finds(&self, object: &Path, status: i32, kind: &str) -> Value {
        let (code, document, said) = verify(&self.site, &[]);
        let told = self.is_told(&document, object, kind);
        assert!(code == status && told, "status {code}, {} is not told of as {kind}: {said}", object.display());
        document
    }

    /// The backups that the document says can be restored, as their places in `backups`.
    fn restorable(&self, document: &Value) -> Vec<usize> {
        let all = document["servers"][0]["backups"].as_array().expect("a list").clone();
        let good = all.iter().filter(|backup| backup["restorable"] == true);
        good.map(|backup| self.backups.iter().position(|id| backup["id"] == id.as_str()).expect("known")).collect()
    }

    /// A restore ends with these words in the table.
    fn restores(&self, words: &[&str], expected: &str) {
        let mut restored = self.site.restore("restored", words);
        restored.start();
        wait_for("the end of recovery", || (restored.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
        let found = restored.ask("SELECT string_agg(word, ' ' ORDER BY n) FROM words_in_order");
        drop(restored);
        fs::remove_dir_all(self.site.dir.join("restored")).expect("removed");
        assert_eq!(found, expected, "{words:?}");
    }

    fn refuses(&self, words: &[&str], statuses: &[i32]) {
        let finished = self.site.try_restore(&self.site.dir.join("refused"), words);
        let code = finished.code();
        let _ = fs::remove_dir_all(self.site.dir.join("refused"));
        assert!(statuses.contains(&code), "{finished}");
    }
}

/// How often each kind of object is damaged at another place. `PITR_TEST_ROUNDS` has it done more often.
fn rounds() -> usize {
    std::env::var("PITR_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("our names are text")
}

fn step(server: &Server, word: &str) {
    server.run("CREATE OR REPLACE VIEW words_in_order AS SELECT word, row_number() OVER () AS n FROM words");
    server.run(&format!("INSERT INTO words VALUES ('{word}')"));
    server.run(&format!("SELECT pg_create_restore_point('{word}')"));
    server.archive_all();
}

fn flip(at: usize) -> impl FnOnce(&mut Vec<u8>) -> bool {
    move |bytes| {
        bytes[at] ^= 0x41;
        true
    }
}

fn cut(bytes: &mut Vec<u8>) -> bool {
    bytes.truncate(bytes.len() / 2);
    true
}

fn remove(_: &mut Vec<u8>) -> bool {
    false
}

/// Where to damage an object.
fn anywhere(random: &mut Random, path: &Path) -> usize {
    let length = usize::try_from(fs::metadata(path).expect("it is there").len()).expect("small");
    random.between(0, length - 1)
}

/// Promise: whatever byte of whatever object rots, it is found and named, what it means is told, and what is said to be unaffected
/// can be restored.
#[test]
fn found_named_and_told() {
    let world = World::new();
    let [a, b, c] = [0, 1, 2].map(|at| world.backups[at].clone());
    let (code, _, said) = verify(&world.site, &[]);
    assert_eq!(code, 0, "{said}");
    let mut random = Random::new(seed());

    // A flipped byte somewhere in each kind of object.
    let segments = world.segments();
    let places = [
        ("backup", world.path(&format!("/packs/{a}"))),
        ("backup", world.path(&format!("{b}/manifest"))),
        ("backup", world.path(&format!("{c}/info"))),
        ("backup", world.path(".tail")),
        ("segment", segments[segments.len() / 2].clone()),
        ("history", world.path("00000002.history")),
        ("other_wal", world.path(".partial.")),
        ("other_wal", world.path(".backup")),
    ];
    for round in 0..rounds() {
        let rows = places.iter().map(|(kind, path)| {
            let mut at = anywhere(&mut random, path);
            if path.ends_with("info") {
                // White space and the letters of texts that nothing else tells carry no meaning: a digit of an LSN does.
                let text = fs::read_to_string(path).expect("it is there");
                at = text.find("stop_lsn").expect("a field") + 12 + round % 3;
            }
            if path.to_string_lossy().contains("/packs/") && round % 2 == 1 {
                at = fs::metadata(path).map(|it| it.len() as usize).expect("it is there") - 300;
            }
            eprintln!("byte {at} of {}", path.display());
            let kind = if round % 2 == 1 && *kind == "backup" && path.to_string_lossy().contains("/packs/") {
                "pack"
            } else {
                *kind
            };
            (kind, path.clone(), Box::new(flip(at)) as Change)
        });
        world.all_found(11, rows.collect());
    }

    // A chunk of the first backup's pack: the other two are said to be good, and are.
    let pack = world.path(&format!("/packs/{a}"));
    world.with(&pack, flip(5000), |world| {
        let document = world.finds(&pack, 11, "backup");
        assert_eq!(world.restorable(&document), [1, 2]);
        let closed = &document["servers"][0]["closed"];
        assert_eq!((closed.as_array().map(Vec::len), &closed[0]["later"]), (Some(2), &true.into()), "{document}");
        let text = world.site.pitr(&["verify"]).run_within(LONG).fails_with(11).stdout;
        assert!(text.contains(&format!("backup {a} cannot be restored")), "{text}");
        assert!(text.contains("closes; later moments are unaffected"), "{text}");
        world.refuses(&["--backup", &a, "--to-name", "one"], &[11]);
        world.restores(&["--backup", &b, "--to-name", "two"], "one two");
    });
    // Its index only: every backup can be restored.
    let length = fs::metadata(&pack).map(|it| it.len() as usize).expect("it is there");
    world.with(&pack, flip(length - 60), |world| {
        let document = world.finds(&pack, 11, "pack");
        assert_eq!(world.restorable(&document), [0, 1, 2], "{document}");
        world.restores(&["--backup", &a, "--to-name", "one"], "one");
    });
    // The last backup's info: the plan takes an earlier one.
    let info = world.path(&format!("{c}/info"));
    world.with(&info, flip(0), |world| {
        let document = world.finds(&info, 11, "backup");
        assert_eq!(world.restorable(&document), [0, 1]);
        assert_eq!(document["servers"][0]["closed"].as_array().map(Vec::len), Some(0), "{document}");
        let status = world.site.pitr(&["status"]).run().fails_with(1).stdout;
        assert!(status.contains("PROBLEM") && status.contains(&c), "{status}");
        world.restores(&["--to-name", "four"], "one two forked promoted three four");
    });
    // A segment after the first backup: moments before it are unaffected, the last commit is named.
    let after = segment_of(&world, "two");
    world.with(&after, flip(700), |world| {
        let document = world.finds(&after, 11, "segment");
        let finding =
            findings(&document).into_iter().find(|finding| finding["kind"] == "segment").expect("it was told");
        assert!(finding["last_commit"]["time"].is_string() && finding["good_until"].is_string(), "{finding}");
        let text = finding["meaning"].as_str().expect("text");
        assert!(text.contains("the commit of ") && text.contains("closes; earlier"), "{text}");
        world.restores(&["--to-name", "one"], "one");
        world.refuses(&["--timeline", "1", "--to-name", "two"], &[11, 19]);
        world.restores(&["--backup", &c, "--to-name", "four"], "one two forked promoted three four");
    });
}

/// The stored segment in which a restore point lies.
fn segment_of(world: &World, point: &str) -> PathBuf {
    let plan = world.site.pitr(&["plan", "--timeline", "1", "--to-name", point, "--json"]).run().ok().stdout;
    let plan: Value = serde_json::from_str(&plan).expect("JSON");
    let lsn: pitr::wal::Lsn = find_lsn(&plan).parse().expect("an LSN");
    let size = pitr::wal::SegmentSize::try_from(1 << 20).expect("a size");
    let number = pitr::wal::SegmentNo::of(pitr::wal::Lsn(lsn.0 - 1), size);
    world.site.stored_path(&pitr::wal::SegmentName::new(pitr::wal::TimelineId(1), number, size).to_string())
}

/// The LSN at which a plan stops.
fn find_lsn(plan: &Value) -> String {
    let stop = if plan["stop"].is_object() { &plan["stop"] } else { &plan["plan"]["stop"] };
    stop["lsn"].as_str().unwrap_or_else(|| panic!("no stop in {plan}")).to_owned()
}

/// Promise: what is removed is missed, named, and told from what is damaged; nothing is made of it that is not so.
#[test]
fn removed_and_cut() {
    let world = World::new();
    let [a, b, c] = [0, 1, 2].map(|at| world.backups[at].clone());
    let (code, _, said) = verify(&world.site, &[]);
    assert_eq!(code, 0, "{said}");
    let two = segment_of(&world, "two");
    let last = world.segments().pop().expect("a segment");
    let object = |part: &str| world.path(part);
    let row =
        |kind: &'static str, path: PathBuf, change: fn(&mut Vec<u8>) -> bool| (kind, path, Box::new(change) as Change);
    world.all_found(
        11,
        vec![
            row("backup", object(&format!("/packs/{b}")), remove),
            row("backup", object(&format!("{c}/info")), remove),
            row("backup", object(&format!("{a}/manifest")), cut),
            row("segment", two.clone(), cut),
            row("history", object("00000002.history"), cut),
            row("other_wal", object(".partial."), cut),
        ],
    );
    world.all_found(
        11,
        vec![
            row("backup", object(&format!("/packs/{a}")), cut),
            row("backup", object(".tail"), remove),
            row("backup_gone", object(&format!("{c}/manifest")), remove),
        ],
    );
    world.all_found(12, vec![row("history", object("00000002.history"), remove)]);
    world.all_found(12, vec![row("missing_wal", last, remove)]);
    // WAL of timeline 1 that is missing keeps its first backup from what comes later, and from nothing before.
    let missing = segment_of(&world, "two");
    world.with(&missing, remove, |world| {
        let document = world.finds(&missing, 12, "missing_wal");
        let text = findings(&document).iter().map(|finding| finding["meaning"].to_string()).collect::<String>();
        assert!(text.contains("restores to moments after LSN ") && text.contains("are not possible"), "{text}");
        world.restores(&["--backup", &a, "--to-name", "one"], "one");
    });
    // A history file alone: as it is said, plans refuse while the damaged file lies there, and timeline 1 can be restored without it.
    let history = world.path("00000002.history");
    world.with(&history, cut, |world| world.refuses(&["--timeline", "1", "--to-name", "two"], &[11]));
    world.with(&history, remove, |world| {
        world.restores(&["--timeline", "1", "--to-name", "two"], "one two");
    });
    // A backup that was broken off, and one that was removed as a whole, are no matter.
    let folder = world.path(&format!("{b}/info")).parent().expect("a folder").to_owned();
    let aside = world.site.dir.join("aside");
    fs::rename(&folder, &aside).expect("moved");
    let (code, document, said) = verify(&world.site, &[]);
    assert_eq!((code, findings(&document)), (0, vec![]), "{said}");
    fs::rename(&aside, &folder).expect("moved back");
}

/// Promise: another segment under a segment's name, whole as it is, and a body that is not what its description says, are found.
#[test]
fn exchanged() {
    let world = World::new();
    let segment = segment_of(&world, "two");
    let other = segment_of(&world, "one");
    let foreign = fs::read(&other).expect("it is there");
    let put = |bytes: &mut Vec<u8>| {
        bytes.clone_from(&foreign);
        true
    };
    world.with(&segment, put, |world| drop(world.finds(&segment, 11, "segment")));
    let pack = world.path(&format!("/packs/{}", world.backups[0]));
    let foreign = fs::read(world.path(&format!("/packs/{}", world.backups[1]))).expect("it is there");
    let put = |bytes: &mut Vec<u8>| {
        bytes.clone_from(&foreign);
        true
    };
    world.with(&pack, put, |world| drop(world.finds(&pack, 11, "backup")));
}

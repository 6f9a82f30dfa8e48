//! A table of damage: no wrong byte ever reaches PostgreSQL.

use std::fs;
use std::path::Path;

use crate::harness::{Run, Site, newest, small, waiting};

/// What is done to the stored object of the first segment.
type Mutilation = Box<dyn Fn(&Path, &[u8])>;

/// Promise: a stored file that was changed in any way is refused with 201 and never delivered, while all others are served.
#[test]
fn damaged_objects() {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0", 2);
    let (other, others) = waiting(&newest(), small(), "look_ahead = 0", 2);
    for (site, segments) in [(&site, &segments), (&other, &others)] {
        for segment in segments {
            site.push(segment).run().ok();
        }
    }
    let path = site.stored_path(&segments[0]);
    let good = fs::read(&path).expect("readable");
    let neighbour = fs::read(site.stored_path(&segments[1])).expect("readable");
    let foreign = fs::read(other.stored_path(&others[0])).expect("readable");
    let raw = fs::read(site.pg_wal(&segments[0])).expect("readable");

    let write = |bytes: Vec<u8>| -> Mutilation { Box::new(move |path, _| fs::write(path, &bytes).expect("written")) };
    let mut rows: Vec<(String, Mutilation)> = vec![
        ("empty".to_owned(), write(Vec::new())),
        ("another segment's".to_owned(), write(neighbour)),
        ("another cluster's".to_owned(), write(foreign)),
        ("the raw file".to_owned(), write(raw.clone())),
        ("text".to_owned(), write(b"404 not found\n".to_vec())),
    ];
    let length = good.len();
    for cut in [1, 4, 100, length / 2, length - 264, length - 1] {
        rows.push((
            format!("cut to {cut}"),
            Box::new(move |path, good| fs::write(path, &good[..cut]).expect("written")),
        ));
    }
    // Body and footer.
    for at in [0, 4, 30, length / 3, length - 264, length - 200, length - 1] {
        rows.push((
            format!("bit at {at}"),
            Box::new(move |path, good| {
                let mut bad = good.to_vec();
                bad[at] ^= 4;
                fs::write(path, bad).expect("written");
            }),
        ));
    }
    for (what, mutilate) in rows {
        mutilate(&path, &good);
        site.dir.write(site.recovery_file(), "older");
        let said = site.fetch(&segments[0]).run();
        assert_eq!(said.code(), 201, "{what}: {said}");
        let said = said.says("is not to be used");
        assert!(said.stderr.contains("Recovery stops here"), "{what}: {said}");
        assert_eq!(fs::read(site.recovery_file()).expect("untouched"), b"older", "{what}");
        site.fetch(&segments[1]).run().ok();
    }
    // The description between body and footer is no part of what PostgreSQL gets; without it the WAL is as good as before.
    let mut bad = good.clone();
    bad[length - 300] ^= 4;
    for harmless in [bad, good] {
        fs::write(&path, harmless).expect("written");
        site.fetch(&segments[0]).run().ok();
        assert!(fs::read(site.recovery_file()).expect("delivered") == raw);
    }
}

/// Promise: a small object that decompresses to more than a segment fills no disk: it is refused as soon as it is too long.
#[test]
fn decompression_bomb() {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0", 1);
    site.push(&segments[0]).run().ok();
    let path = site.stored_path(&segments[0]);
    let zeros = site.dir.write("zeros", vec![0; 64 << 20]);
    let packed = std::process::Command::new("lz4").args(["-q", "-f"]).arg(&zeros).arg(&path).status();
    assert!(packed.expect("lz4 runs").success());
    site.fetch(&segments[0]).run().fails_with(201).says("longer than the 1048576 bytes of a segment");
    assert!(!site.recovery_file().exists());
}

/// Promise: a link in the repository that leads out of it is not followed, and a history file is checked like everything else.
#[test]
fn links_and_history_files() {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0\nfetch_timeout = \"1s\"", 1);
    site.push(&segments[0]).run().ok();
    site.dir.write(site.pg_wal("00000002.history"), "1\t0/3000060\tno recovery target specified\n");
    site.push("00000002.history").run().ok();
    let path = site.stored_path("00000002.history");
    let mut bad = fs::read(&path).expect("readable");
    bad[20] ^= 1;
    fs::write(&path, bad).expect("written");
    site.fetch("00000002.history").run().fails_with(201);

    let path = site.stored_path(&segments[0]);
    let outside = site.dir.join("outside");
    fs::rename(&path, &outside).expect("moved");
    std::os::unix::fs::symlink(&outside, &path).expect("linked");
    refuses(&site, &segments[0]);
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("made");
    refuses(&site, &segments[0]);
}

/// Ends above 125 and delivers nothing.
fn refuses(site: &Site, segment: &str) {
    let said = site.fetch(segment).run();
    assert!(said.code() >= 200, "{said}");
    assert!(!site.recovery_file().exists());
}

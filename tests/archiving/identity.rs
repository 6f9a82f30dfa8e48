//! Which cluster a file belongs to, and what is refused because it belongs to none, or to another.

use std::fs;
use std::path::{Path, PathBuf};

use crate::data_directory_like;
use crate::harness::{Options, Run, Site, newest, small, waiting};

/// A file for `pg_wal`, made from a good segment.
type Forgery = (&'static str, fn(&mut Vec<u8>), i32, &'static str);

/// Promise: a file that is not what its name says is refused, with the reason, and nothing of it is stored.
#[test]
fn forged_segments() {
    let (site, segments) = waiting(&newest(), small(), "", 2);
    let good = fs::read(site.pg_wal(&segments[0])).expect("readable");
    let rows: [Forgery; 9] = [
        ("another cluster's", |raw| raw[24] ^= 1, 9, "was written by the cluster with system identifier"),
        ("without an owner", |raw| raw[24..32].fill(0), 13, "carries no system identifier"),
        ("zeros", |raw| raw.fill(0), 13, "nothing was written to it yet"),
        ("of another timeline", |raw| raw[4] = 9, 13, "is of timeline 9"),
        ("recycled", |raw| raw[10] -= 0x10, 13, "a recycled file that was not written yet"),
        ("of a later place", |raw| raw[12] = 1, 13, "should begin at"),
        ("of PostgreSQL 19", |raw| raw[0..2].copy_from_slice(&[0x22, 0xD1]), 13, "page magic 0xD122"),
        ("of another page size", |raw| raw[37] = 0x40, 13, "pages of 16384 bytes"),
        ("of another segment size", |raw| raw[34] = 0x20, 13, "a segment of its cluster has 2097152"),
    ];
    for (what, change, status, reason) in rows {
        for suffix in ["", ".partial"] {
            let mut raw = good.clone();
            change(&mut raw);
            let name = format!("{}{suffix}", segments[0]);
            site.dir.write(site.pg_wal(&name), &raw);
            let said =
                site.push(&name).run().fails_with(status).says(reason).says("It stays in pg_wal").says("HINT:  ");
            assert!(said.stderr.starts_with("pitr-wal-push: ERROR:  WAL file"), "{what}: {said}");
            assert_eq!(site.stored_wal(), Vec::<String>::new(), "{what}{suffix}");
        }
    }
    let renamed = segments[1].replace(&segments[1][16..], "000000FE");
    site.dir.write(site.pg_wal(&renamed), &good);
    site.push(&renamed).run().fails_with(13).says("a recycled file");
}

/// Promise: a segment size that the repository does not know the cluster by is refused: names would mean other places.
#[test]
fn changed_segment_size() {
    let (site, _) = waiting(&newest(), small(), "", 0);
    let (other, segments) = waiting(&newest(), Options::default().segment_size_mib(2), "", 1);
    let mut raw = fs::read(other.pg_wal(&segments[0])).expect("readable");
    let control = fs::read(site.server.data_dir().join("global/pg_control")).expect("readable");
    raw[24..32].copy_from_slice(&control[..8]);
    site.dir.write(site.pg_wal(&segments[0]), &raw);
    site.push(&segments[0]).run().fails_with(9).says("with segments of 2097152 bytes").says("pg_resetwal");
}

/// Promise: names that PostgreSQL never hands over are refused before anything is opened.
#[test]
fn names() {
    let (site, _) = waiting(&newest(), small(), "", 0);
    for name in [
        "pg_wal/00000001000000000000000a",
        "pg_wal/000000010000000000000001.gz",
        "pg_wal/xlogtemp.1234",
        "pg_wal",
        "/",
        "..",
        "pg_wal/000000010000000000000001\n",
    ] {
        site.push_path(Path::new(name))
            .run()
            .fails_with(2)
            .says("is not the name of a WAL file")
            .says("pitr-wal-push %p");
    }
    let mut none = site.dir.pitr("pitr-wal-push");
    none.run().fails_with(2).says("the argument PATH is missing");
    let help = site.dir.pitr("pitr-wal-push").arg("--help").run().ok();
    assert!(help.stdout.contains("archive_command = 'pitr-wal-push %p'") && help.stderr.is_empty());
    assert!(site.dir.pitr("pitr-wal-push").arg("--version").run().ok().stdout.starts_with("pitr-wal-push "));
    site.push("000000010000000000000001").arg("x").run().fails_with(2).says("one argument too many");
    site.push("0000000100000000000000F1").run().fails_with(14).says("No such file");
    site.dir.make_dir(site.pg_wal("0000000100000000000000F1"));
    site.push("0000000100000000000000F1").run().fails_with(14).says("not a regular file");
}

/// Promise: the cluster is found by its system identifier from the data directory, from anywhere by an absolute path, and
/// behind a `pg_wal` that lies elsewhere; and what does not fit the configuration is refused.
#[test]
fn which_cluster() {
    let dir = crate::harness::TestDir::new();
    let waldir = dir.join("waldir");
    let options = Options { waldir: Some(waldir.clone()), ..small() };
    let (site, segments) = waiting(&newest(), options, "look_ahead = 0", 3);

    // Through the link, as PostgreSQL does; by an absolute path from elsewhere; by the real path, from the data directory.
    site.push(&segments[0]).run().ok();
    site.push_path(&site.pg_wal(&segments[1])).current_dir("/").run().ok();
    site.push_path(&waldir.join(&segments[2])).run().ok();
    for segment in &segments {
        site.assert_archived(segment);
    }
    let nowhere = |command: &mut std::process::Command| command.current_dir("/").run();
    let real = waldir.join(&segments[2]);
    nowhere(&mut site.push_path(&real)).fails_with(3).says("there is no global/pg_control in \"/\"");
    nowhere(site.push_path(&real).args(["--cluster", "main"])).ok();
    nowhere(site.push_path(&real).env("PITR_CLUSTER", "main")).ok();
    site.push(&segments[0]).args(["--cluster", "other"]).run().fails_with(3).says("cluster \"other\" is not in");

    let config = fs::read_to_string(site.config()).expect("readable");
    let at = config.find("system_identifier = \"").expect("it is set");
    let mut changed = config.clone();
    changed.replace_range(at + 21..at + 25, "1111");
    site.dir.write("pitr.toml", &changed);
    site.push(&segments[0]).run().fails_with(9).says("no cluster with system identifier");
    site.push(&segments[0]).args(["--cluster", "main"]).run().fails_with(9).says("but this server has");
    let without: String =
        config.lines().filter(|line| !line.starts_with("system_id")).map(|l| format!("{l}\n")).collect();
    site.dir.write("pitr.toml", &without);
    site.push(&segments[0]).run().fails_with(9);
    site.push(&segments[0]).args(["--cluster", "main"]).run().ok();
    fs::remove_file(site.config()).expect("removed");
    site.push(&segments[0]).run().fails_with(3).says("does not exist");
}

/// Promise: a server that was never announced to the repository gets nothing stored there, whatever the configuration says.
#[test]
fn unknown_to_the_repository() {
    let (site, segments) = waiting(&newest(), small(), "", 1);
    let (other, others) = waiting(&newest(), small(), "", 1);
    let config = fs::read_to_string(site.config()).expect("readable");
    let ours = config.split("path = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a path");
    let theirs = fs::read_to_string(other.config()).expect("readable");
    let path = theirs.split("path = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a path");
    other.dir.write("pitr.toml", theirs.replace(&format!("path = \"{path}\""), &format!("path = \"{ours}\"")));
    other.push(&others[0]).run().fails_with(9).says("has no system identifier");
    assert_eq!(site.stored_wal(), Vec::<String>::new());
    site.push(&segments[0]).run().ok();
}

/// Promise: a repository in the data directory is refused: it would be lost with the server.
#[test]
fn repository_inside_the_data_directory() {
    let (site, segments) = waiting(&newest(), small(), "", 1);
    let inside = site.server.data_dir().join("repository");
    fs::rename(site.repository(), &inside).expect("moved");
    let push = |repository: &Path| site.push(&segments[0]).env("PITR_REPOSITORY", repository).run();
    push(&inside).fails_with(3).says("lies inside");
    let link = site.dir.join("link");
    std::os::unix::fs::symlink(&inside, &link).expect("linked");
    push(&link).fails_with(3).says("lies inside");
    fs::rename(&inside, site.repository()).expect("moved back");
    push(&site.repository()).ok();
}

/// Promise: a repository that is not mounted, or not there, gets nothing: its empty mount point is no repository.
#[test]
fn unmounted_repository() {
    let (site, segments) = waiting(&newest(), small(), "", 1);
    let away = site.dir.join("away");
    fs::rename(site.repository(), &away).expect("moved");
    site.push(&segments[0]).run().fails_with(5).says("Is the file system of the repository mounted");
    let empty = site.dir.make_dir("repository");
    site.push(&segments[0]).run().fails_with(5).says("is not a pitr repository");
    assert_eq!(fs::read_dir(&empty).expect("readable").count(), 0, "nothing was written under the mount point");
    fs::remove_dir(&empty).expect("removed");
    fs::rename(&away, site.repository()).expect("moved back");
    site.push(&segments[0]).run().ok();
}

/// Promise: a repository of a newer format is refused, and one whose marker is damaged.
#[test]
fn other_formats() {
    let (site, segments) = waiting(&newest(), small(), "", 1);
    let marker: PathBuf = site.repository().join("pitr.json");
    let text = fs::read_to_string(&marker).expect("readable");
    for (changed, status, reason) in [
        (text.replace("\"format\": 1", "\"format\": 2"), 6, "has format 2, and this pitr knows format 1"),
        (text[..text.len() / 2].to_owned(), 11, "cannot be understood"),
    ] {
        fs::write(&marker, changed).expect("written");
        site.push(&segments[0]).run().fails_with(status).says(reason);
    }
    fs::write(&marker, text).expect("written");
    site.push(&segments[0]).run().ok();
}

/// Promise: foreign things in the repository neither disturb nor are touched.
#[test]
fn foreign_things_in_the_repository() {
    let (site, segments) = waiting(&newest(), small(), "", 2);
    site.push(&segments[0]).run().ok();
    let folder = site.stored_path(&segments[0]).parent().expect("a folder").to_owned();
    for name in [".DS_Store", "lost+found", "Thumbs.db", ".nfs0000001", "00000001000000000000000g", ".pitr-tmp-1-2"] {
        fs::write(folder.join(name), "not ours").expect("written");
    }
    site.push(&segments[1]).run().ok();
    site.push(&segments[0]).run().ok();
    site.fetch("0000000100000000000000F0").run().fails_with(1);
    for name in [".DS_Store", "lost+found", "Thumbs.db", ".nfs0000001", "00000001000000000000000g", ".pitr-tmp-1-2"] {
        assert_eq!(fs::read(folder.join(name)).expect("still there"), b"not ours");
    }
}

/// Promise: another data directory with the same identifier (a standby, a copy) may archive the same bytes: that is success,
/// and who was first stays on record.
#[test]
fn the_same_bytes_from_two_sources() {
    let (site, segments) = waiting(&newest(), small(), "", 1);
    let other = data_directory_like(&site, "other");
    let raw = fs::read(site.pg_wal(&segments[0])).expect("readable");
    site.dir.write(Path::new("other/pg_wal").join(&segments[0]), raw);
    let from_other = |site: &Site| site.push(&segments[0]).current_dir(&other).run();
    from_other(&site).ok();
    site.push(&segments[0]).run().ok();
    let name = pitr::repository::wal::WalObjectName::Segment(segments[0].parse().expect("a name"));
    let stored = site.archived().describe(name).expect("described");
    assert_eq!(stored.details.archived_by.source, other.to_str().expect("text"));
}

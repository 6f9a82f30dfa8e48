//! Another primary: a standby that is promoted, or the cluster as it was at an earlier backup. Either begins a timeline.

use std::fs;
use std::path::{Path, PathBuf};

use super::cluster::{Cluster, Taken};
use super::contents;
use super::harness::dir::chown_to_test_user;
use super::harness::{Random, Row, Server, Stop};
use super::judge;

/// How the cluster came to another timeline.
pub enum Changed {
    /// A standby was promoted.
    Promoted,
    /// It was taken back to this backup.
    TakenBack(String),
}

impl Cluster {
    /// The cluster gets another primary; the ledger goes on there.
    pub fn change_primary(&mut self, live: &[Taken], random: &mut Random) -> Changed {
        let name = format!("server-{}", self.number());
        let changed = if random.between(0, 2) == 0 {
            let taken = &live[random.between(0, live.len() - 1)];
            self.take_back(&name, taken);
            Changed::TakenBack(taken.id.clone())
        } else {
            let standby = match live.last().filter(|taken| self.is_latest(taken) && random.coin()) {
                Some(taken) => self.standby_by_restore(&name, taken),
                None => self.standby_by_copy(&name),
            };
            self.fail_over(standby, random);
            Changed::Promoted
        };
        assert_eq!(self.site.server.ask("SHOW archive_mode"), "on");
        assert_eq!(self.site.server.ask("SHOW archive_command"), self.site.push_command());
        changed
    }

    fn standby_by_copy(&self, name: &str) -> Server {
        println!("a standby by pg_basebackup");
        let moved =
            self.moved(name, contents::tablespaces(&self.site.server).into_iter().map(|(_, location)| location));
        let mut standby =
            Server::standby_with(&self.site.dir, &self.site.server, name, Some(&self.site.fetch_command()), &moved);
        follow_the_latest(&mut standby);
        standby
    }

    /// From the backup of yesterday: no tablespace was made since, which replay would make where the primary has it.
    fn standby_by_restore(&self, name: &str, taken: &Taken) -> Server {
        println!("a standby by pitr restore");
        let moved = self.moved(name, taken.locations.iter().cloned());
        let words = mapped(&["--backup", &taken.id, "--to", "latest", "--take-over"], &moved);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let data = self.site.dir.join(name);
        self.site.try_restore(&data, &words).ok();
        fs::remove_file(data.join("recovery.signal")).expect("it would have recovered");
        write(&data.join("standby.signal"));
        let mut standby =
            Server::following(&self.site.dir, &self.site.server, name, &data, Some(&self.site.fetch_command()));
        follow_the_latest(&mut standby);
        standby
    }

    /// The primary ends in one way or another, and the standby takes its place with all that was committed.
    fn fail_over(&mut self, mut standby: Server, random: &mut Random) {
        standby.start();
        let writer = self.writer.as_ref().expect("it writes");
        writer.wait_for_more(20);
        let rows = self.stop_writing();
        self.site.server.wait_for_standby(&standby);
        let end = random.between(0, 2);
        println!("the primary ends ({end}), the standby is promoted");
        match end {
            0 => self.site.server.stop(Stop::Fast),
            1 => self.site.server.stop(Stop::Immediate),
            _ => self.site.server.kill9(),
        }
        standby.promote();
        self.go_on(standby, &rows);
    }

    /// The cluster becomes what it was at a backup, and goes on from there.
    fn take_back(&mut self, name: &str, taken: &Taken) {
        println!("taken back to backup {}", taken.id);
        self.stop_writing();
        self.site.server.stop(Stop::Fast);
        let moved = self.moved(name, taken.locations.iter().cloned());
        let words = mapped(&["--backup", &taken.id, "--to", "immediate", "--take-over"], &moved);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut server = self.site.restore(name, &words);
        server.start();
        server.wait_open();
        let rows = judge::compare(&server, taken);
        let rows = taken.rows[..rows].to_vec();
        self.go_on(server, &rows);
    }

    /// The ledger continues behind these rows.
    fn go_on(&mut self, server: Server, rows: &[Row]) {
        let old = std::mem::replace(&mut self.site.server, server);
        let data = old.data_dir().to_owned();
        drop(old);
        fs::remove_dir_all(data).expect("the old primary's files can go");
        self.site.configure(&self.settings);
        self.begin_to_write();
        let known = self.writer.as_ref().expect("it writes").rows();
        let same = |(one, two): (&Row, &Row)| (one.n, one.xid) == (two.n, two.xid);
        assert!(known.len() >= rows.len() && known.iter().zip(rows).all(same), "rows were lost or changed");
    }

    /// New places for tablespaces, for a server of this name.
    pub fn moved(&self, name: &str, locations: impl Iterator<Item = String>) -> Vec<(String, PathBuf)> {
        let place = |(number, old)| (old, self.site.dir.join(format!("{name}-space-{number}")));
        locations.enumerate().map(place).collect()
    }
}

/// A cluster that was restored has in its settings where that was to end, and a copy of it has them too.
fn follow_the_latest(standby: &mut Server) {
    standby.configure("recovery_target_timeline", "latest");
    standby.configure("recovery_target", "");
}

/// Words of a restore, with tablespaces put elsewhere.
pub fn mapped(words: &[&str], moved: &[(String, PathBuf)]) -> Vec<String> {
    let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    for (old, new) in moved {
        words.extend(["--tablespace".to_owned(), format!("{old}={}", new.display())]);
    }
    words
}

fn write(path: &Path) {
    fs::write(path, "").expect("written");
    chown_to_test_user(path);
}

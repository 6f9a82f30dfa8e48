//! Setting up: `pitr init` on real servers, and what it refuses.

mod harness;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use harness::{Options, Run, Server, Site, TestDir, majors, newest, test_user};

/// The line of the output that holds `needle`, without blanks around it.
fn line<'a>(text: &'a str, needle: &str) -> &'a str {
    let found = text.lines().find(|line| line.contains(needle));
    found.unwrap_or_else(|| panic!("no line with {needle:?} in:\n{text}")).trim()
}

/// Promise: on every major, `init` makes the repository, records the server, and prints exactly the lines that are missing;
/// pasted into the server, they make the next run say that nothing is.
#[test]
fn init_says_what_is_missing_until_nothing_is() {
    for postgres in majors() {
        let dir = TestDir::new();
        let mut server = Server::running(&dir, &postgres, &Options::default().segment_size_mib(1).page_checksums());
        let identifier = server.ask("SELECT system_identifier FROM pg_control_system()");
        let repository = dir.join("repository");
        let mut init = dir.pitr("pitr");
        init.arg("init").args(["--cluster", "main", "--repository"]).arg(&repository);
        init.args(["--conninfo", &server.conninfo()]).env("PITR_SPOOL", dir.join("spool"));

        let first = init.run().ok().stdout;
        let version = server.ask("SHOW server_version");
        assert_eq!(
            line(&first, "server:"),
            format!(
                "server:      PostgreSQL {version}, system identifier {identifier}, WAL segments of 1 MiB, page checksums on"
            )
        );
        assert!(line(&first, "repository:").ends_with("\", made"), "{first}");
        let archive_mode = line(&first, "archive_mode = on").to_owned();
        let archive_command = line(&first, "archive_command = ").to_owned();
        assert!(first.contains(&format!("system_identifier = \"{identifier}\"")), "{first}");
        assert!(first.contains("CREATE ROLE \"pitr\" WITH LOGIN REPLICATION;"), "{first}");
        let record =
            fs::read_to_string(repository.join("main").join(&identifier).join("server.json")).expect("a record");
        assert!(record.contains(&format!("\"major\": {}", postgres.major)), "{record}");

        // The user pastes what was printed: the lines into the server, the rest into a configuration file.
        let lines = format!("{archive_mode}\n{archive_command}\narchive_timeout = 60s\n");
        let conf = server.data_dir().join("postgresql.conf");
        let text = fs::read_to_string(&conf).expect("a configuration");
        fs::write(&conf, text + &lines).expect("a configuration");
        let toml: String = first
            .lines()
            .skip_while(|line| !line.contains("[repository]"))
            .take_while(|line| line.is_empty() || line.starts_with("    "))
            .map(|line| format!("{}\n", line.trim()))
            .collect();
        let config = dir.write("pitr.toml", toml);
        server.restart();

        let again = dir.pitr("pitr").arg("--config").arg(&config).arg("init").run().ok().stdout;
        assert!(again.contains("Nothing is missing."), "{again}");
        assert!(line(&again, "repository:").ends_with("\", ready"), "{again}");
    }
}

/// Promise: a cluster's name in a repository belongs to one server; another one is refused and told whose it is.
#[test]
fn another_cluster_is_refused() {
    let site = Site::unprepared(&newest(), Options::default(), "");
    site.pitr(&["init"]).run().ok();
    let identifier = site.server.ask("SELECT system_identifier FROM pg_control_system()");
    let other = Server::running(&site.dir, &newest(), &Options::named("other"));
    let other_identifier = other.ask("SELECT system_identifier FROM pg_control_system()");

    // As configured, the file already knows better.
    let refused = site.pitr(&["init", "--conninfo", &other.conninfo()]).run().fails_with(9);
    assert!(refused.stderr.contains("cluster \"main\" has system identifier"), "{refused}");

    let init = |cluster: &str, words: &[&str]| {
        let mut command = site.dir.pitr("pitr");
        command.args(["init", "--cluster", cluster, "--conninfo", &other.conninfo(), "--repository"]);
        command.arg(site.repository()).args(words).run()
    };
    let refused = init("main", &[]).fails_with(9);
    let what = format!(
        "pitr: ERROR:  cluster \"main\" in the repository belongs to the server with system identifier {identifier}, not {other_identifier}\n"
    );
    assert!(refused.stderr.starts_with(&what), "{refused}");
    refused.says("DETAIL:  It was added by host ").says("HINT:  Give this server another name");
    // Under another name the same repository may hold both, but one server has one name.
    init("other", &[]).ok();
    init("third", &[]).fails_with(9).says("is cluster \"other\" in the repository, not \"third\"");
    // After pg_upgrade a cluster has a new system identifier, and keeps the old one.
    init("fourth", &["--upgraded"]).fails_with(9);
    let new = Server::running(&site.dir, &newest(), &Options::named("new"));
    let upgraded = site.pitr(&["init", "--upgraded", "--conninfo", &new.conninfo()]).run().ok().stdout;
    let new_identifier = new.ask("SELECT system_identifier FROM pg_control_system()");
    assert!(upgraded.contains("Put this line into [cluster.main]"), "{upgraded}");
    assert!(upgraded.contains(&format!("system_identifier = \"{new_identifier}\"")), "{upgraded}");
    let record = site.repository().join("main").join(&new_identifier).join("server.json");
    let record = fs::read_to_string(record).expect("a record");
    assert!(record.contains(&format!("\"upgraded_from\": \"{identifier}\"")), "{record}");
}

/// Promise: a repository is made only where nothing of somebody else's lies, and never inside a server's own directories.
#[test]
fn where_a_repository_may_not_lie() {
    let site = Site::unprepared(&newest(), Options::default(), "");
    let init = |path: &Path| site.pitr(&["init", "--repository"]).arg(path).run();

    let foreign = site.dir.make_dir("foreign");
    site.dir.write("foreign/letter", "dear");
    init(&foreign).fails_with(5).says("is not empty: it holds \"letter\"");
    assert!(!foreign.join("pitr.json").exists());

    let inside = site.server.data_dir().join("repository");
    init(&inside).fails_with(3).says("cannot lie inside the data directory");
    assert!(!inside.exists());

    let space = site.dir.make_dir("space");
    site.server.run(&format!("CREATE TABLESPACE s LOCATION '{}'", space.display()));
    init(&space.join("repository")).fails_with(3).says("cannot lie inside the tablespace");

    let mounted = site.dir.make_dir("mounted");
    site.dir.make_dir("mounted/lost+found");
    init(&mounted).ok();
}

/// Promise: run as root, the repository belongs to the server's user, whose archiver has to write into it; also where the
/// directory was made by root.
#[test]
fn root_gives_the_repository_away() {
    if !test_user().step_down {
        return;
    }
    let site = Site::unprepared(&newest(), Options::default(), "");
    for (name, exists) in [("fresh", false), ("roots", true)] {
        let repository = site.dir.join(name);
        if exists {
            fs::create_dir(&repository).expect("a directory");
        }
        let mut pitr = Command::new(env!("CARGO_BIN_EXE_pitr"));
        pitr.arg("--config").arg(site.config()).args(["init", "--repository"]).arg(&repository).run().ok();
        let everything = [repository.clone(), repository.join("pitr.json"), repository.join("main")];
        for path in everything {
            let metadata = fs::metadata(&path).expect("it is there");
            assert_eq!(metadata.uid(), test_user().uid, "{}", path.display());
            assert_eq!(metadata.mode() & 0o077, 0, "{} may be read by others", path.display());
        }
    }
}

/// Promise: a server that does not let pitr in is a clear error with the lines that help, and nothing is made.
#[test]
fn a_server_that_refuses() {
    let hba = "local all postgres trust\nlocal replication postgres trust\n".to_owned();
    let options = Options { hba: Some(hba), ..Options::default() };
    let site = Site::unprepared(&newest(), options, "");
    let refused = site.pitr(&["init", "--conninfo", &site.server.conninfo_as("pitr")]).run().fails_with(16);
    assert!(refused.stderr.starts_with("pitr: ERROR:  the server refused: no pg_hba.conf entry"), "{refused}");
    assert!(refused.stdout.contains("CREATE ROLE \"pitr\" WITH LOGIN REPLICATION;"), "{refused}");
    assert!(refused.stdout.contains("local  postgres,replication  pitr  scram-sha-256"), "{refused}");
    assert!(!site.repository().exists());

    // The role and the lines, used as printed, let it in with just the rights it needs.
    let sql: String = refused.stdout.lines().map(str::trim).filter(|line| line.ends_with(';')).collect();
    site.server.run(&format!("{sql} ALTER ROLE pitr PASSWORD 'secret'"));
    let hba = site.server.data_dir().join("pg_hba.conf");
    let old = fs::read_to_string(&hba).expect("pg_hba.conf");
    fs::write(&hba, old + line(&refused.stdout, "local  postgres") + "\n").expect("pg_hba.conf");
    site.server.reload();
    let mut init = site.pitr(&["init", "--conninfo", &site.server.conninfo_as("pitr")]);
    let done = harness::wait_for("the server to have read pg_hba.conf", || {
        let done = init.env("PGPASSWORD", "secret").run();
        done.status.success().then_some(done)
    });
    assert!(!done.stdout.contains("Rights:"), "{done}");
    assert!(!done.stdout.contains("secret") && !done.stderr.contains("secret"), "{done}");

    let nowhere = site.pitr(&["init", "--conninfo", "host=/nowhere user=postgres"]).run().fails_with(15);
    nowhere.says("could not connect").says("HINT:  Is the server running");
}

/// Promise: every mistake in the configuration names its file and line, ends with status 3, and does nothing.
#[test]
fn mistakes_in_the_configuration() {
    let dir = TestDir::new();
    let rows = [
        (
            "[cluster.main]\ncompresion = \"lz4\"\n",
            "unknown name \"compresion\" in [cluster.main] at ",
            ":2\n",
            "HINT:  Is \"compression\" meant?",
        ),
        (
            "[cluster.main]\nrepository = \"here\"\n",
            "cannot be \"here\" (",
            ":2)\n",
            "HINT:  Allowed is an absolute path",
        ),
        ("[cluster.main]\nspool = \n", "cannot parse ", ":2: ", "HINT:  Correct this line"),
        ("[cluster.main]\n", "no repository is configured for cluster", "\"main\"\n", "PITR_REPOSITORY"),
        ("[cluster.a]\n[cluster.b]\n", "has several clusters and none was named", "\n", "--cluster NAME"),
        ("", "no cluster is configured", "\n", "[cluster.NAME]"),
    ];
    for (text, what, place, hint) in rows {
        let config = dir.write("pitr.toml", text);
        let refused = dir.pitr("pitr").arg("--config").arg(&config).arg("init").run().fails_with(3);
        assert!(refused.stderr.contains(what) && refused.stderr.contains(place), "{refused}");
        refused.says(hint);
    }
    let missing = dir.pitr("pitr").args(["--config", "/nowhere.toml", "init"]).run().fails_with(3);
    assert_eq!(
        missing.stderr,
        "pitr: ERROR:  configuration file \"/nowhere.toml\" (named by --config) does not exist\n\
         DETAIL:  Nothing was done.\nHINT:  Correct --config, or make the file.\n"
    );
    dir.pitr("pitr").args(["--cluster", "../x", "init"]).run().fails_with(2).says("is not a cluster name");
}

/// Promise: `check` ends with 0 where archiving works, on every major, after a segment has made the whole way, and its
/// report is complete; as JSON it says the same.
#[test]
fn check_proves_the_road() {
    for postgres in majors() {
        let site = Site::new(&postgres);
        let identifier = site.server.ask("SELECT system_identifier FROM pg_control_system()");
        let version = site.server.ask("SHOW server_version");
        let checked = site.pitr(&["check"]).run().ok().stdout;
        let lines: Vec<&str> = checked.lines().collect();
        assert_eq!(lines[0], format!("ok       configuration  {}, cluster main", site.config().display()));
        assert_eq!(lines[1], format!("ok       repository     directory \"{}\"", site.repository().display()));
        assert_eq!(lines[2], format!("ok       spool          directory \"{}\"", site.dir.join("spool").display()));
        assert_eq!(lines[3], format!("ok       server         PostgreSQL {version}, system identifier {identifier}"));
        assert_eq!(lines[4], "ok       settings       archiving is on and calls pitr-wal-push");
        assert_eq!(lines[5], "ok       identity       the repository knows this server");
        assert_eq!(lines[6], "ok       storing        written, synced, read back; a second writer is refused");
        assert!(lines[7].starts_with("ok       archiver       "), "{checked}");
        assert!(lines[8].starts_with("ok       road           segment \"00000001"), "{checked}");
        assert!(lines[8].ends_with(" s and was read back, 16777216 bytes"), "{checked}");
        assert_eq!(lines[9..], ["", "Archiving works."]);

        let json = site.pitr(&["--json", "check"]).run().ok().stdout;
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&json["ok"], &json["checks"][8]["verdict"]), (&true.into(), &"ok".into()), "{json}");
    }
}

/// Promise: whatever is wrong, `check` says which part, what helps, and ends with 1.
#[test]
fn check_finds_what_is_wrong() {
    let mut site = Site::unprepared(&newest(), Options::default(), "");
    let check = |site: &Site| site.pitr(&["check", "--timeout", "5s"]).run().fails_with(1).stdout;

    // No repository: never made, or not mounted.
    assert!(check(&site).contains("FAILED   repository     could not open"));
    site.pitr(&["init"]).run().ok();

    let told = check(&site);
    assert!(told.contains("FAILED   settings       archive_command is \"\""), "{told}");
    assert!(told.contains("HINT:  \"pitr init\" prints the lines for postgresql.conf."), "{told}");
    assert!(told.contains("skipped  road"), "{told}");

    // The server's user may not read the configuration: the archiver fails, and the road shows it at once.
    let command = site.push_command().replace("pitr.toml", "missing.toml");
    site.server.configure("archive_command", &command);
    site.server.reload();
    let told =
        harness::wait_for("the new command", || Some(check(&site)).filter(|told| !told.contains("FAILED   settings")));
    assert!(told.contains("FAILED   road           the server could not archive segment"), "{told}");
    assert!(told.contains("HINT:  The server's log has the message of pitr-wal-push."), "{told}");

    assert!(told.contains("WARNING  settings       archive_command reads another configuration file"), "{told}");

    // An empty directory where the repository was is an unmounted one, and archiving into it is refused.
    site.archive();
    fs::rename(site.repository(), site.dir.join("elsewhere")).expect("renamed");
    site.dir.make_dir("repository");
    let told = check(&site);
    assert!(told.contains("is not a pitr repository: it has no pitr.json"), "{told}");
    let segment =
        site.server.data_dir().join("pg_wal").join(site.server.ask("SELECT pg_walfile_name(pg_current_wal_lsn())"));
    let mut push = site.dir.pitr("pitr-wal-push");
    push.arg("--config").arg(site.config()).arg(segment).current_dir(site.server.data_dir());
    push.run().fails_with(5).says("is not a pitr repository");
    assert_eq!(fs::read_dir(site.repository()).expect("a directory").count(), 0);
}

/// Promise: a standby is checked too: it ends no segment, and waits for one that the primary ends.
#[test]
fn check_on_a_standby() {
    let site = Site::new(&newest());
    site.server.archive_all();
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", Some(&site.fetch_command()));
    standby.configure("archive_mode", "always");
    standby.start();
    site.server.run("CREATE TABLE t ()");
    let reached = site.server.ask("SELECT pg_current_wal_lsn()");
    harness::wait_for("the standby to follow", || {
        let follows = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{reached}', false)");
        (standby.ask(&follows) == "t").then_some(())
    });
    // With the deadline at zero nothing can have come; with the primary's help it comes.
    let waiting =
        site.pitr(&["check", "--timeout", "1ms"]).env("PITR_CONNINFO", standby.conninfo()).run().fails_with(1);
    assert!(waiting.stdout.contains("was not ended and archived within 1ms"), "{waiting}");
    let mut check = site.pitr(&["check"]);
    check.env("PITR_CONNINFO", standby.conninfo());
    let done = std::thread::scope(|scope| {
        let check = scope.spawn(|| check.run().ok());
        harness::wait_for("the check to see a segment", || {
            site.server.archive_all();
            check.is_finished().then_some(())
        });
        check.join().expect("the check has not panicked")
    });
    assert!(done.stdout.contains("Archiving works."), "{done}");
}

/// Promise: `status` and `list` tell the truth at every stage: no repository, nothing yet, a backup with its window, a hole.
#[test]
fn status_and_list() {
    let mut site = Site::unprepared(&newest(), Options::default(), "");
    site.pitr(&["status"]).run().fails_with(5).says("HINT:  Is the file system of the repository mounted");
    site.pitr(&["init"]).run().ok();
    assert!(site.pitr(&["status"]).run().fails_with(1).stdout.contains("nothing can be restored yet"));
    assert!(site.pitr(&["list"]).run().ok().stdout.contains("There is no base backup yet"));

    site.archive();
    site.backup();
    site.server.run("CREATE TABLE t ()");
    let last = site.server.archive_all();
    let told = site.pitr(&["status"]).run().ok().stdout;
    assert!(line(&told, "last archived").contains(&last), "{told}");
    assert!(line(&told, "timeline 1: from ").ends_with(", the last commit"), "{told}");
    let backups = site.pitr(&["--json", "list"]).run().ok().stdout;
    let backups: serde_json::Value = serde_json::from_str(&backups).expect("JSON");
    assert_eq!(backups.as_array().map(Vec::len), Some(1), "{backups}");
    let id = backups[0]["id"].as_str().expect("an id");
    assert!(site.pitr(&["list"]).run().ok().stdout.starts_with(id));
    assert!(told.contains(&format!("from backup {id} on (1 in it)")), "{told}");

    // What cannot be read is not told as nothing; the rest is told.
    let info =
        site.repository().join("main").join(site.server.ask("SELECT system_identifier FROM pg_control_system()"));
    let info = info.join("backups").join(id).join("info");
    let kept = fs::read(&info).expect("readable");
    fs::write(&info, "no JSON").expect("written");
    let told = site.pitr(&["status"]).run().fails_with(1).stdout;
    assert!(told.contains("backups        UNKNOWN") && told.contains("PROBLEM: "), "{told}");
    assert!(line(&told, "last archived").contains(&last), "{told}");
    fs::write(&info, kept).expect("written");

    // A segment that vanishes in the middle is a hole, and somebody has to know.
    let lost = site.server.archive_all();
    site.server.archive_all();
    let wal = site.repository().join("main");
    let found = std::process::Command::new("find").arg(&wal).args(["-name", &lost, "-delete", "-print"]).run().ok();
    assert!(found.stdout.contains(&lost), "{found}");
    let told = site.pitr(&["status"]).run().fails_with(1).stdout;
    let problem = format!("PROBLEM: WAL is missing on timeline 1: 1 segments, \"{lost}\" to \"{lost}\"");
    assert_eq!(line(&told, "PROBLEM"), problem, "{told}");
    let json = site.pitr(&["--json", "status"]).run().fails_with(1).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["servers"][0]["holes"][0]["first"].as_str(), Some(lost.as_str()), "{json}");
}

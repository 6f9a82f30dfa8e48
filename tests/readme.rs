//! The README's runbook is run as it stands: a guide that is wrong is worse than none.
//!
//! Every `sh` block below "Runbook" is typed on a real server, in order. Only what differs between the reader's machine and
//! a test is exchanged: paths, the connection, and the moment that is asked for.

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::{Options, Run, Server, Site, as_test_user, wait_for};

/// The blocks of one language after a heading, in order.
fn blocks(text: &str, heading: &str, language: &str) -> Vec<String> {
    let text = text.split_once(heading).expect("the README has that heading").1;
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut block, fence) {
            (Some(lines), None) => {
                lines.push_str(line.trim_start());
                lines.push('\n');
            }
            (Some(_), Some(_)) => found.extend(block.take().filter(|lines| !lines.is_empty())),
            (None, Some(kind)) if kind == language => block = Some(String::new()),
            // A block of another language: its lines are passed over, its end too.
            (None, _) => {}
        }
    }
    found
}

/// The runbook, from `pitr init` to a restored server, gives the rows of the moment asked for.
#[test]
fn runbook() {
    let readme = include_str!("../README.md");
    let mut site = Site::unprepared(&harness::newest(), Options::default(), "");
    let toml = blocks(readme, "# Runbook", "toml").remove(0);
    let target = site.dir.join("restored");
    let identifier = site.server.ask("SELECT system_identifier FROM pg_control_system()");
    let toml = toml
        .replace("/var/lib/pitr", &site.repository().display().to_string())
        .replace("host=/var/run/postgresql user=pitr dbname=postgres", &site.server.conninfo());
    site.dir.write("pitr.toml", toml.clone());

    let mut moment = String::new();
    let scripts = blocks(readme, "# Runbook", "sh");
    assert!(scripts.len() >= 6, "the runbook lost commands");
    for script in scripts {
        let typed = script
            .replace("/var/lib/postgresql/restored", &target.display().to_string())
            .replace("5 min ago", &moment)
            .replace("--start", &format!("--start --pg-bin {}", site.server.postgres.bin_dir().display()));
        shell(&site, &typed).run_within(Duration::from_secs(120)).ok();
        if typed.contains("pitr init") {
            // What init asked for is put in place, as the runbook says.
            site.dir.write("pitr.toml", format!("{toml}\nsystem_identifier = \"{identifier}\"\n"));
            site.archive();
        }
        if typed.contains("pitr backup") {
            site.server.run("CREATE TABLE t AS SELECT 1 AS a");
            moment = site
                .server
                .ask("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || 'Z'");
            site.server.run("INSERT INTO t VALUES (2)");
            site.server.run("CREATE TABLE orders(a int)");
            site.server.run("DROP TABLE orders");
            site.server.archive_all();
        }
    }

    let lines = std::fs::read_to_string(target.join("postmaster.pid")).expect("--start left a server running");
    let lines: Vec<&str> = lines.lines().collect();
    let conninfo = format!("host={} port={} user=postgres dbname=postgres", lines[4], lines[3]);
    let mut client = wait_for("the restored server", || postgres::Client::connect(&conninfo, postgres::NoTls).ok());
    let rows: i64 = client.query_one("SELECT count(*) FROM t", &[]).expect("the table is there").get(0);
    assert_eq!(rows, 1, "exactly what was committed up to the moment");
    stop(&site.server, &target);
}

/// A shell as the reader's: our programs in its path, the configuration where it belongs.
fn shell(site: &Site, script: &str) -> Command {
    for name in ["pitr", "pitr-wal-push", "pitr-wal-fetch"] {
        site.dir.binary(name);
    }
    let binaries = site.dir.binary("pitr");
    let folder = binaries.parent().expect("a program is in a directory");
    let mut command = as_test_user("bash");
    command.args(["-euc", script]).env("PITR_CONFIG", site.config());
    command.env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
    command
}

fn stop(server: &Server, data: &std::path::Path) {
    let mut stop = as_test_user(server.postgres.bin("pg_ctl"));
    stop.args(["stop", "-m", "immediate", "-D"]).arg(data).run().ok();
}

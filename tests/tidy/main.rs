//! The code checks its own rules: what a reviewer would otherwise have to say again and again.
//!
//! Each rule is a function of a file's path and text that gives the violations in words, so that every rule is shown to
//! bite: once on the tree, where it must find nothing, and once on a planted violation, where it must find it.

mod layers;
mod readme;
mod source;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// One text file of the project: its path from the root, and what it holds.
struct File {
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All text files of the project, without what is built, fetched or recorded.
fn all_files() -> Vec<File> {
    let mut files = Vec::new();
    let mut pending = vec![root().to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("the project's directories are readable") {
            let path = entry.expect("the project's directories are readable").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("our names are UTF-8");
            // In a second work tree `.git` is a file.
            if ["target", ".git", "corpus", "artifacts", "golden", "Cargo.lock"].contains(&name) {
                continue;
            }
            if path.is_dir() {
                pending.push(path);
            } else if path.is_file()
                && let Ok(text) = fs::read_to_string(&path)
            {
                let path = path.strip_prefix(root()).expect("it was found below the root");
                files.push(File { path: path.to_str().expect("our names are UTF-8").to_owned(), text });
            }
        }
    }
    assert!(files.len() > 20, "the walk over the project found nearly nothing");
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Fails with all violations of one rule over the files it is for.
fn check(rule: &str, files: impl IntoIterator<Item = File>, violations: impl Fn(&File) -> Vec<String>) {
    let found: Vec<String> = files
        .into_iter()
        .flat_map(|file| violations(&file).into_iter().map(move |what| format!("{}: {what}", file.path)))
        .collect();
    assert!(found.is_empty(), "{rule}\n  {}\n", found.join("\n  "));
}

fn library_files() -> impl Iterator<Item = File> {
    let files = all_files();
    let of_tests = source::test_modules(&files);
    files.into_iter().filter(move |file| {
        file.is_rust() && file.path.starts_with("src/") && !source::is_below_one_of(&file.path, &of_tests)
    })
}

/// Promise: a reader can start at the bottom layer and never meet something unexplained.
#[test]
fn each_layer_imports_only_from_those_below_it() {
    check("A module may import only from its own layer and those before it in the list:", library_files(), |file| {
        layers::wrong_imports(&file.path, &file.text)
    });
}

/// Promise: names, times, plans and formats do no input or output and know no clock, so they can be tested with tables.
#[test]
fn pure_layers_are_pure() {
    check("The domain and the formats do no I/O and know no clock:", library_files(), |file| {
        layers::impurities(&file.path, &file.text)
    });
}

/// Promise: durability (fsync, rename, fsync of the directory) lives in one module, where its order is right.
#[test]
fn only_durable_makes_things_durable() {
    check("Use `durable` for this:", library_files(), |file| layers::own_durability(&file.path, &file.text));
}

/// Promise: each module has a front page.
#[test]
fn each_module_begins_with_its_front_page() {
    let rust = all_files().into_iter().filter(File::is_rust);
    check("A file begins with `//!`: what it is for, its layer, what it leaves to others:", rust, |file| {
        source::missing_front_page(&file.text)
    });
}

/// Promise: a file can be held in mind.
#[test]
fn no_file_is_too_long() {
    check("Split by phase or by subject:", all_files().into_iter().filter(File::is_rust), |file| {
        source::too_long(&file.text)
    });
}

/// Promise: nothing half-done and nothing that panics on input is shipped.
#[test]
fn nothing_is_left_half_done() {
    check("Finish it, or say in words why it cannot fail:", library_files(), |file| source::half_done(&file.text));
}

/// Promise: the project stands alone; nothing in it speaks of the place where it was made.
#[test]
fn the_project_stands_alone() {
    check("Say it so that a stranger understands it:", all_files(), |file| source::foreign_words(&file.text));
}

/// Promise: what the README tells to type exists, down to the options.
#[test]
fn the_documents_commands_exist() {
    let documents = all_files().into_iter().filter(|file| file.path.ends_with(".md"));
    check("A guide that is wrong is worse than none:", documents, |file| {
        readme::wrong_commands(&file.text).into_iter().chain(readme::dead_links(&file.path, &file.text)).collect()
    });
}

/// Promise: each script can be started and says with what.
#[test]
fn scripts_can_be_started() {
    let scripts = fs::read_dir(root().join("scripts")).expect("scripts/ exists");
    let mut paths: Vec<PathBuf> = scripts.map(|entry| entry.expect("scripts/ is readable").path()).collect();
    paths.push(root().join(".ci/run"));
    for path in paths.iter().filter(|path| path.is_file() && !path.ends_with("lib.sh")) {
        let mode = fs::metadata(path).expect("it was listed").permissions().mode();
        let text = fs::read_to_string(path).expect("a script is text");
        assert!(mode & 0o111 == 0o111, "{} is not executable: chmod +x", path.display());
        assert!(text.starts_with("#!"), "{} does not say what runs it: #!/usr/bin/env bash", path.display());
        let careful = !text.starts_with("#!/usr/bin/env bash") || text.contains("set -euo pipefail");
        assert!(careful, "{} goes on after an error: set -euo pipefail", path.display());
    }
}

/// Promise: every rule above bites. A rule that finds nothing here would find nothing anywhere.
#[test]
fn each_rule_finds_a_planted_violation() {
    type Rule = fn(&File) -> Vec<String>;
    let planted: [(&str, Rule, File); 18] = [
        (
            "upward import",
            |f| layers::wrong_imports(&f.path, &f.text),
            File::new("src/wal/lsn.rs", "use crate::codec;"),
        ),
        (
            "upward import in a group",
            |f| layers::wrong_imports(&f.path, &f.text),
            File::new("src/codec/mod.rs", "use crate::{\n    wal::Lsn,\n    storage::{Storage, Key},\n};"),
        ),
        (
            "upward import by super",
            |f| layers::wrong_imports(&f.path, &f.text),
            File::new("src/chunk/split.rs", "use super::super::command::backup;"),
        ),
        (
            "inline path",
            |f| layers::wrong_imports(&f.path, &f.text),
            File::new("src/pgdata/mod.rs", "fn f() { crate::config::load() }"),
        ),
        ("unknown module", |f| layers::wrong_imports(&f.path, &f.text), File::new("src/misc.rs", "use crate::wal;")),
        ("input and output", |f| layers::impurities(&f.path, &f.text), File::new("src/wal/x.rs", "std::fs::read(p)")),
        ("clock", |f| layers::impurities(&f.path, &f.text), File::new("src/recovery/x.rs", "SystemTime::now()")),
        ("own fsync", |f| layers::own_durability(&f.path, &f.text), File::new("src/spool/x.rs", "file.sync_all()?;")),
        ("no front page", |f| source::missing_front_page(&f.text), File::new("src/x.rs", "use std::fs;")),
        ("too long", |f| source::too_long(&f.text), File::new("src/x.rs", &"\n".repeat(501))),
        ("todo", |f| source::half_done(&f.text), File::new("src/x.rs", concat!("fn f() { to", "do!() }"))),
        ("unwrap", |f| source::half_done(&f.text), File::new("src/x.rs", "let x = y.unwrap();")),
        ("reminder", |f| source::half_done(&f.text), File::new("src/x.rs", concat!("// FIX", "ME later"))),
        ("place", |f| source::foreign_words(&f.text), File::new("a.md", concat!("see /wo", "rk/main"))),
        ("number", |f| source::foreign_words(&f.text), File::new("a.md", concat!("as iss", "ue #12 says"))),
        ("no such script", |f| readme::wrong_commands(&f.text), File::new("a.md", "run `scripts/dance` now")),
        ("no such verb", |f| readme::wrong_commands(&f.text), File::new("a.md", "```sh\n$ pitr dance --now\n```")),
        ("dead link", |f| readme::dead_links(&f.path, &f.text), File::new("a.md", "see [it](docs/NOTHING.md)")),
    ];
    for (name, rule, file) in planted {
        assert!(!rule(&file).is_empty(), "the rule did not find the planted violation \"{name}\"");
    }
}

/// Promise: the rules leave alone what is right.
#[test]
fn the_rules_accept_what_is_right() {
    let right = [
        File::new("src/codec/frame.rs", "//! Page.\nuse crate::wal::Lsn;\nuse super::super::wal;\nuse super::footer;"),
        File::new("src/command/mod.rs", "//! See [`crate::report`].\nuse crate::{config, wal::{Lsn, page}};"),
        File::new(
            "src/wal/x.rs",
            "//! Page.\n#[cfg(test)]\nmod tests { use crate::command::x; fn f() { y.unwrap() } }",
        ),
    ];
    for file in right {
        assert_eq!(layers::wrong_imports(&file.path, &file.text), Vec::<String>::new(), "{}", file.path);
        assert_eq!(source::half_done(&file.text), Vec::<String>::new(), "{}", file.path);
    }
}

//! The layer rule: who may import whom, and what the pure layers must not touch.

use super::source::shipped_code;

/// The layers from the bottom up. A module imports from its own layer and those before it.
const LAYERS: [&[&str]; 5] = [
    // Domain: pure.
    &["wal", "recovery"],
    // Formats: bytes to types and back.
    &["codec", "manifest", "chunk", "catalog"],
    // Storage.
    &["durable", "storage", "repository", "spool"],
    // Drivers.
    &["replication", "pgdata"],
    // Commands, and the two modules they speak to people with.
    &["config", "command", "report"],
];

/// Layers up to this one are pure.
const LAST_PURE_LAYER: usize = 1;

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The top-level module a file belongs to; none for the crate roots, which may import everything.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    if inside == "lib.rs" || inside == "main.rs" { None } else { Some(module) }
}

/// Imports that point upwards.
pub(crate) fn wrong_imports(path: &str, text: &str) -> Vec<String> {
    let Some(module) = module_of(path) else { return Vec::new() };
    let Some(own) = layer(module) else {
        return vec![format!("module `{module}` is in no layer: add it to the list in tests/tidy/layers.rs")];
    };
    let mut wrong: Vec<String> = imported_modules(path, &shipped_code(text))
        .into_iter()
        .filter_map(|other| {
            if other == module || module_is_crate_item(&other) {
                return None;
            }
            match layer(&other) {
                Some(its) if its < own || (its == own && !is_forbidden_beside(module, &other)) => None,
                Some(_) => Some(format!("`{module}` imports `{other}`, which is above it")),
                None => Some(format!("imports `{other}`, which is in no layer")),
            }
        })
        .collect();
    wrong.sort();
    wrong.dedup();
    wrong
}

/// Within the last layer too the arrows have a direction: settings know nothing of the commands that use them.
fn is_forbidden_beside(module: &str, other: &str) -> bool {
    module == "config" && ["command", "report"].contains(&other)
}

/// Constants and macros at the crate's root are no modules.
fn module_is_crate_item(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
}

/// Names of the top-level modules that code refers to by `crate::...` or by enough `super::`.
fn imported_modules(path: &str, code: &str) -> Vec<String> {
    let inside = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = inside.split('/').count();
    let to_root = "super::".repeat(depth);
    let mut found = Vec::new();
    for start in ["crate::".to_owned(), to_root] {
        for (at, _) in code.match_indices(&start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$' || c == ':') {
                continue;
            }
            found.extend(first_names(&code[at + start.len()..]));
        }
    }
    found
}

/// The first path segment, or those of each item of a `{...}` group.
fn first_names(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut item_begins = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => item_begins = true,
            c if item_begins && !c.is_whitespace() => {
                names.push(name(&group[at..]));
                item_begins = false;
            }
            _ => {}
        }
    }
    names
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What the pure layers must not name.
pub(crate) fn impurities(path: &str, text: &str) -> Vec<String> {
    let pure = module_of(path).and_then(layer).is_some_and(|layer| layer <= LAST_PURE_LAYER);
    let impure = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "rustix::",
        "SystemTime::now",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
    ];
    if pure { lines_naming(text, &impure) } else { Vec::new() }
}

/// Making things durable by hand.
pub(crate) fn own_durability(path: &str, text: &str) -> Vec<String> {
    let calls = [
        ".sync_all(",
        ".sync_data(",
        "fs::rename(",
        "fs::hard_link(",
        "renameat",
        "::linkat(",
        "fsync(",
        "fdatasync(",
        "syncfs(",
    ];
    if module_of(path) == Some("durable") { Vec::new() } else { lines_naming(text, &calls) }
}

fn lines_naming(text: &str, words: &[&str]) -> Vec<String> {
    let code = shipped_code(text);
    code.lines()
        .filter(|line| words.iter().any(|word| line.contains(word)))
        .map(|line| line.trim().to_owned())
        .collect()
}

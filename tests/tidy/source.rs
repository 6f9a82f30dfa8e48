//! Rules on the text of one source file.

use super::File;

/// A file longer than this does not fit into a reader's mind.
const MOST_LINES: usize = 500;

/// The text before a file's `#[cfg(test)]` module, without comments. Test modules stand last in a file.
pub(crate) fn shipped_code(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("#[cfg(test)]") && !line.starts_with(' ') {
            break;
        }
        if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// Path prefixes of modules that are compiled for tests alone: `#[cfg(test)] mod x;`.
pub(crate) fn test_modules(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let (dir, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let stem = name.trim_end_matches(".rs");
        let below = if ["mod", "lib", "main"].contains(&stem) { dir.to_owned() } else { format!("{dir}/{stem}") };
        let mut lines = file.text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(next) = lines.peek() else { break };
            if line == "#[cfg(test)]"
                && let Some(module) = next.rsplit_once("mod ").and_then(|(_, rest)| rest.strip_suffix(';'))
            {
                found.push(format!("{below}/{module}"));
            }
        }
    }
    found
}

/// Whether a path is one of the modules or lies below one.
pub(crate) fn is_below_one_of(path: &str, modules: &[String]) -> bool {
    modules
        .iter()
        .any(|module| path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
}

/// A file that does not begin with `//!`.
pub(crate) fn missing_front_page(text: &str) -> Vec<String> {
    let says = text.lines().next().is_some_and(|line| line.starts_with("//!"));
    if says { Vec::new() } else { vec!["does not begin with //!".to_owned()] }
}

/// A file of too many lines.
pub(crate) fn too_long(text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines <= MOST_LINES { Vec::new() } else { vec![format!("{lines} lines, {MOST_LINES} are the most")] }
}

/// Marks of unfinished work, and panics without a reason, in code that is shipped.
pub(crate) fn half_done(text: &str) -> Vec<String> {
    let marks =
        [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("db", "g!("), ".unwrap()", ".expect(\"\")"];
    let code = shipped_code(text);
    let mut found = lines_with(&code, &marks);
    // These count in comments too.
    let reminders = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK")];
    found.extend(lines_with(text, &reminders));
    found
}

/// Words that mean something only where the project was made, and addresses of registries, which are their clients' matter.
pub(crate) fn foreign_words(text: &str) -> Vec<String> {
    let words = [
        concat!("/wo", "rk/"),
        concat!("/fa", "rm/"),
        concat!("../sha", "red"),
        concat!("DESI", "GN.md"),
        concat!("PITF", "ALLS"),
        concat!("ENVIRON", "MENT.md"),
        concat!("STY", "LE.md"),
        concat!("BRI", "EF.md"),
        concat!("registry.npm", "js.org"),
        concat!("py", "pi.org"),
        concat!("python", "hosted.org"),
        concat!("index.crates", ".io"),
    ];
    let mut found = lines_with(text, &words);
    for (number, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        let mut rest = lower.as_str();
        while let Some((_, after)) = rest.split_once(concat!("iss", "ue ")) {
            let numbered = after.trim_start_matches('#').starts_with(|c: char| c.is_ascii_digit());
            if numbered {
                found.push(format!("line {}: {}", number + 1, line.trim()));
            }
            rest = after;
        }
    }
    found
}

fn lines_with(text: &str, words: &[&str]) -> Vec<String> {
    let numbered = text.lines().enumerate();
    let bad = numbered.filter(|(_, line)| words.iter().any(|word| line.contains(word)));
    bad.map(|(number, line)| format!("line {}: {}", number + 1, line.trim())).collect()
}

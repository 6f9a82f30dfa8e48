//! Rules on the documents: the commands they show can be typed, and their links lead somewhere.

use std::path::Path;
use std::process::Command;

use super::root;

/// Commands in a document that do not exist: scripts, verbs of `pitr`, and their options.
pub(crate) fn wrong_commands(text: &str) -> Vec<String> {
    let mut wrong = missing_scripts(text);
    for line in typed_lines(text) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for (at, _) in words.iter().enumerate().filter(|(_, word)| **word == "pitr") {
            wrong.extend(wrong_call(&words[at + 1..]));
        }
    }
    wrong
}

/// Lines a reader would type: in fenced blocks, as they are or behind `$`, continued ones joined. Output is not typed.
fn typed_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut kind = None;
    let joined = text.replace("\\\n", " ");
    for line in joined.lines() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            kind = if kind.is_some() { None } else { Some(fence.to_owned()) };
            continue;
        }
        let typed = match kind.as_deref() {
            Some("sh") => !line.trim_start().starts_with('#'),
            Some("console") => line.starts_with("$ "),
            _ => false,
        };
        if typed {
            lines.push(line.split(" # ").next().unwrap_or_default().to_owned());
        }
    }
    lines
}

/// `pitr` with these words: does its help know the verb and the options?
fn wrong_call(words: &[&str]) -> Option<String> {
    let shown = format!("pitr {}", words.join(" "));
    let verbs: Vec<&str> =
        words.iter().copied().take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    let verb = verbs.first()?;
    // "config show" has two words; a verb's own argument ("backup main") is none of the help's business.
    let help = help_of(&verbs).or_else(|| help_of(&[verb]));
    let Some(help) = help else { return Some(format!("`{shown}`: there is no such command")) };
    let known: Vec<&str> = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
    let option = |word: &&str| -> Option<String> {
        let name = word.split('=').next().filter(|name| name.starts_with("--") && name.len() > 2)?;
        Some(name.trim_end_matches([',', '.', ')', '`']).to_owned())
    };
    let unknown = words.iter().filter_map(option).find(|name| !known.contains(&name.as_str()))?;
    Some(format!("`{shown}`: there is no option {unknown}"))
}

fn help_of(verbs: &[&str]) -> Option<String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_pitr")).args(verbs).arg("--help").output().expect("pitr can be started");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Mentions of `scripts/NAME` without such a file.
fn missing_scripts(text: &str) -> Vec<String> {
    let mut missing = Vec::new();
    for (at, start) in text.match_indices("scripts/") {
        let rest = &text[at + start.len()..];
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
        let name = name.trim_end_matches('.');
        if !root().join("scripts").join(name).exists() {
            missing.push(format!("there is no scripts/{name}"));
        }
    }
    missing
}

/// Links to files of the project that are not there.
pub(crate) fn dead_links(path: &str, text: &str) -> Vec<String> {
    let beside = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut dead = Vec::new();
    for (at, start) in text.match_indices("](") {
        let rest = &text[at + start.len()..];
        let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
        let local = !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
        if local && !root().join(beside).join(target).exists() {
            dead.push(format!("the link to {target} leads nowhere"));
        }
    }
    dead
}

//! The house's style, executed: what rustfmt and clippy do not know of.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file past this holds two ideas ("about 400 lines").
const FILE_LINES: usize = 420;
/// A function past this holds two ideas ("about 60 lines").
const FUNCTION_LINES: usize = 66;

/// What a part of the house must not know of. A folder or a file; the words that may not occur in its code.
const IGNORANT: &[(&str, &[&str])] = &[
    (
        "src/route",
        &["crate::sys", "haft_sys::", "crate::master", "Instant", "SystemTime", "libc::", "nix::", "tokio::"],
    ),
    ("src/node/wire", &["crate::master", "crate::dispatch", "Instant::now", "SystemTime::now", "tokio::"]),
    ("src/pool", &["crate::sys", "crate::master", "Instant::now", "SystemTime::now", "libc::", "nix::"]),
    ("src/dispatch", &["crate::master", "crate::process", "crate::listen", "SystemTime::now", "tokio::"]),
    ("src/peek", PARSER),
    ("src/pending", &["crate::master", "crate::process", "crate::builtin", "crate::admin"]),
    ("src/worker/protocol/frame.rs", &["haft_sys::scm", "Instant", "SystemTime", "libc::", "nix::", "tokio::"]),
    // As a program of a user's would.
    ("src/builtin", &["haft_sys::", "crate::sys", "crate::handover", "crate::master", "crate::process"]),
];

/// What no parser must know of.
const PARSER: &[&str] =
    &["crate::sys", "crate::handover", "crate::master", "crate::dispatch", "crate::builtin", "crate::admin", "Instant"];

/// Retired packages, which only one folder may use, so that each is quickly replaced.
const CONFINED: &[(&str, &str)] = &[("fxhash::", "src/route"), ("serde_yaml::", "src/flags")];

/// What the prefix of a limit is not, spelt in two parts, so that this file does not find itself.
const MAX_DIALECTS: &[&str] = &[concat!("MOST", "_"), concat!("LONGEST", "_"), concat!("LARGEST", "_")];

/// A source file: its path from the top of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn below(&self, place: &str) -> bool {
        Path::new(&self.path).starts_with(place) || self.path == format!("{place}.rs")
    }

    /// Whether all of it is test code. A module of tests at the end of a file is no file.
    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The lines that are code: number from 1, and text without a comment at its end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(number, line)| {
            let end = line.find(" // ").unwrap_or(line.len());
            (number, &line[..end])
        })
    }
}

fn sources(folders: &[&str], endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut found = Vec::new();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("directory entry").path();
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if path.is_dir() && !path.ends_with("node_modules") {
                waiting.push(path);
            } else if endings.contains(&ending) {
                let text = fs::read_to_string(&path).expect("a source file is text");
                let path = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "no sources found");
    found
}

fn rust() -> Vec<Source> {
    sources(&["src", "tests", "benches", "examples"], &["rs"])
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn files_are_short() {
    let all = sources(&["src", "tests", "benches", "examples"], &["rs", "mjs", "js", "py", "sh"]);
    let found: Vec<_> = all
        .iter()
        .map(|source| (source, source.text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES)
        .map(|(source, lines)| format!("{}: {lines} lines", source.path))
        .collect();
    assert_none("files that hold more than one idea", &found);
}

#[test]
fn functions_are_short() {
    let mut found = Vec::new();
    for source in rust() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (first, line) in lines.iter().enumerate().filter(|(_, line)| begins_function(line)) {
            // rustfmt puts the closing brace alone in the column where the function began.
            let closing = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let length = lines[first..].iter().take_while(|line| **line != closing).count() + 1;
            let one_liner = line.ends_with('}') || line.ends_with(';');
            if !one_liner && length > FUNCTION_LINES && first + length <= lines.len() {
                found.push(format!("{}:{}: {length} lines", source.path, first + 1));
            }
        }
    }
    assert_none("functions that hold more than one idea", &found);
}

fn begins_function(line: &str) -> bool {
    let before_name = line.trim_start().split("fn ").next().unwrap_or_default();
    let qualifiers = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
    line.contains("fn ") && before_name.split_whitespace().all(|word| qualifiers.contains(&word))
}

#[test]
fn a_file_says_what_it_is_for() {
    let silent: Vec<_> = rust()
        .into_iter()
        .filter(|source| source.path.starts_with("src/") && !source.path.contains("/tests/"))
        .filter(|source| !source.text.starts_with("//!") && !source.text.starts_with("#![doc"))
        .map(|source| source.path)
        .collect();
    assert_none("files that do not begin by saying what they are for", &silent);
}

#[test]
fn each_part_knows_only_its_own() {
    let mut found = Vec::new();
    for source in rust() {
        for (place, words) in IGNORANT.iter().filter(|(place, _)| source.below(place)) {
            for (number, line) in source.code() {
                let word = words.iter().find(|word| line.contains(**word));
                found.extend(word.map(|word| format!("{}:{number}: {place} must not know {word}", source.path)));
            }
        }
    }
    assert_none("parts that know too much", &found);
}

#[test]
fn no_two_types_share_a_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in rust().iter().filter(|source| source.path.starts_with("src/") && !source.is_test()) {
        for (number, line) in source.code().take_while(|(_, line)| *line != "mod tests {") {
            if let Some(name) = declared_type(line) {
                places.entry(name.to_owned()).or_default().push(format!("{}:{number}", source.path));
            }
        }
    }
    assert!(places.len() > 500, "types are found: {}", places.len());
    let shared = places.iter().filter(|(_, places)| places.len() > 1);
    let found: Vec<_> = shared.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    assert_none("names that stand for more than one type", &found);
}

/// The name of the type that this line declares. An indented `type` is not one: a foreign trait prescribes its name.
fn declared_type(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    if line.trim_start().starts_with("pub(in ") {
        words.next();
    }
    let keyword = words.next()?;
    let is_type = ["struct", "enum", "union", "trait"].contains(&keyword)
        || line.starts_with(|c: char| c != ' ') && keyword == "type";
    let name = words.next().filter(|_| is_type)?;
    name.split(|c: char| !c.is_alphanumeric()).next().filter(|name| name.starts_with(char::is_uppercase))
}

#[test]
fn declarations_of_types_are_recognised() {
    let declared = [
        "struct Name;",
        "pub struct Name<'a> {",
        "    pub(crate) enum Name {",
        "pub(in crate::master) struct Name(u8);",
        "pub trait Name: Send {",
        "type Name = u8;",
    ];
    for line in declared {
        assert_eq!(declared_type(line), Some("Name"), "{line}");
    }
    for line in ["    type Name = u8;", "impl Name {", "let structure = Name;", "", "use crate::Name;"] {
        assert_eq!(declared_type(line), None, "{line}");
    }
}

#[test]
fn limits_are_called_max() {
    let mut found = Vec::new();
    for source in sources(&["src", "tests", "benches", "examples"], &["rs", "mjs", "js", "cjs", "py"]) {
        for (number, line) in source.code() {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let others = words.filter(|word| MAX_DIALECTS.iter().any(|prefix| word.starts_with(prefix)));
            found.extend(others.map(|word| format!("{}:{number}: {word}", source.path)));
        }
    }
    assert_none("limits that do not begin with MAX_", &found);
}

#[test]
fn retired_packages_stay_confined() {
    let mut found = Vec::new();
    for source in rust().iter().filter(|source| source.path.starts_with("src/")) {
        for (package, place) in CONFINED.iter().filter(|(_, place)| !source.below(place)) {
            for (number, _) in source.code().filter(|(_, line)| line.contains(package)) {
                found.push(format!("{}:{number}: {package} belongs into {place}", source.path));
            }
        }
    }
    assert_none("retired packages outside their place", &found);
}

#[test]
fn nothing_is_left_for_later() {
    // Spelt in two parts, so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut found = Vec::new();
    for source in sources(&["src", "tests", "benches", "examples"], &["rs", "mjs", "js", "py", "sh", "html", "css"]) {
        for (index, line) in source.text.lines().enumerate() {
            let mark = marks.iter().find(|mark| line.contains(**mark));
            found.extend(mark.map(|mark| format!("{}:{}: {mark}", source.path, index + 1)));
        }
    }
    assert_none("work left for later", &found);
}

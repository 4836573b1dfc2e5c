//! What the documents say of flags, held against `haft --help`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use super::documents;

/// Flags of other programs, and of haft's commands, that the documents speak of.
const FOREIGN: &[&str] = &[
    "client",
    "cpus",
    "experimental-permission",
    "init",
    "inspect",
    "json",
    "live",
    "locked",
    "permission",
    "stop-timeout",
    "wait",
    "import",
];

/// A flag of the help: how it is written, and its default.
struct Known {
    short: Option<char>,
    default: Option<String>,
}

/// All flags by their long names.
fn known() -> BTreeMap<String, Known> {
    let output = Command::new(env!("CARGO_BIN_EXE_haft")).arg("--help").output().expect("haft");
    let help = String::from_utf8(output.stdout).expect("text");
    let mut flags: BTreeMap<String, Known> = BTreeMap::new();
    let mut texts: Vec<(String, Option<char>, String)> = Vec::new();
    for line in help.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with('-') && line.len() - trimmed.len() <= 6 {
            let short = if trimmed.starts_with("--") { None } else { trimmed.chars().nth(1) };
            let long = trimmed.split("--").nth(1).expect("a long name");
            let end = long.find(|it: char| !it.is_ascii_alphanumeric() && it != '-').unwrap_or(long.len());
            texts.push((long[..end].to_owned(), short, String::new()));
        } else if let Some((_, _, text)) = texts.last_mut() {
            text.push_str(trimmed);
            text.push(' ');
        }
    }
    for (long, short, text) in texts {
        let default = text.split("[default: ").nth(1).and_then(|rest| Some(rest.split_once(']')?.0.to_owned()));
        flags.insert(long, Known { short, default });
    }
    assert!(flags.len() > 40, "{:?}", flags.keys());
    flags
}

/// The long flags that a text names.
fn named(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("--") {
        let before = text[..at].chars().next_back();
        let name: String = text[at + 2..]
            .chars()
            .take_while(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || *it == '-')
            .collect();
        if before.is_none_or(|it| !it.is_alphanumeric() && it != '-')
            && name.starts_with(|it: char| it.is_ascii_lowercase())
        {
            found.push(name.trim_end_matches('-').to_owned());
        }
    }
    found
}

/// The rows of the tables whose first heading is `flag`: place, cells.
fn rows() -> Vec<(String, Vec<String>)> {
    let mut rows = Vec::new();
    for document in documents() {
        let mut inside = false;
        for (number, line) in document.lines(None) {
            // A `|` within a cell is written `\|`.
            let line = line.replace("\\|", "\u{1}");
            let Some(cells) = line.strip_prefix('|') else {
                inside = false;
                continue;
            };
            let cells = cells.trim_end().trim_end_matches('|').split('|');
            let cells: Vec<String> = cells.map(|cell| cell.trim().replace('\u{1}', "|")).collect();
            if cells[0] == "flag" {
                assert_eq!(cells, ["flag", "meaning", "default"], "{}", document.at(number));
                inside = true;
            } else if inside && !cells[0].starts_with("---") {
                rows.push((document.at(number), cells));
            }
        }
    }
    rows
}

#[test]
fn each_flag_has_a_row_with_its_default() {
    let known = known();
    let (mut missing, mut wrong) = (known.keys().cloned().collect::<BTreeSet<_>>(), Vec::new());
    for (place, cells) in rows() {
        let [flag, _, default] = &cells[..] else { panic!("{place}: {} cells", cells.len()) };
        let names = named(flag);
        let [name] = &names[..] else { panic!("{place}: one flag in a row, not {names:?}") };
        let Some(flag_known) = known.get(name) else {
            wrong.push(format!("{place}: there is no --{name}"));
            continue;
        };
        missing.remove(name);
        let short = flag.trim_start_matches('`').chars().nth(1).filter(|it| *it != '-');
        if short != flag_known.short {
            wrong.push(format!("{place}: the short form of --{name} is {:?}", flag_known.short));
        }
        let default = default.replace('`', "");
        if default != flag_known.default.clone().unwrap_or_default().replace('`', "") {
            wrong.push(format!("{place}: the default of --{name} is {:?}, not {default:?}", flag_known.default));
        }
    }
    wrong.extend(missing.iter().map(|name| format!("docs: no row for --{name}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_documents_name_no_flag_that_is_not_there() {
    let known = known();
    let (mut wrong, mut foreign) = (Vec::new(), BTreeSet::new());
    // What was once is in the changelog.
    for document in documents().iter().filter(|document| document.path != "CHANGELOG.md") {
        // Whole commands have a test of their own.
        for (number, text) in document.code_spans().into_iter().filter(|(_, span)| span.starts_with('-')) {
            for name in named(text).into_iter().filter(|name| !known.contains_key(name)) {
                if !FOREIGN.contains(&name.as_str()) {
                    wrong.push(format!("{}: --{name} in {text}", document.at(number)));
                }
                foreign.insert(name);
            }
        }
    }
    let unused = FOREIGN.iter().filter(|name| !foreign.contains(**name));
    wrong.extend(unused.map(|name| format!("--{name} of another program is named nowhere")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

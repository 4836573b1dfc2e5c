//! Which file of `src` uses which: no set of files, and no set of folders, reaches itself again by `use`.
//!
//! A module and its own children count as one. What only tests use does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The arrows of a graph: which file uses which.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The modules below `src`: their paths from its top, and their code without tests.
struct Modules(BTreeMap<String, String>);

impl Modules {
    fn read() -> Self {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut modules = BTreeMap::new();
        let mut waiting = vec![top.clone()];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(&folder).expect("a folder of src") {
                let path = entry.expect("directory entry").path();
                if path.is_dir() {
                    waiting.push(path);
                } else if path.extension().is_some_and(|ending| ending == "rs") {
                    let name = module(path.strip_prefix(&top).expect("below src"));
                    let is_test = name.split("::").any(|part| matches!(part, "tests" | "testing" | "simulation"));
                    if !is_test {
                        modules.insert(name, without_tests(&fs::read_to_string(&path).expect("a source file is text")));
                    }
                }
            }
        }
        Self(modules)
    }

    /// The file that a path leads to: the longest part of it that is a module.
    fn file_of(&self, path: &[String]) -> Option<String> {
        (1..=path.len()).rev().map(|count| path[..count].join("::")).find(|name| self.0.contains_key(name))
    }

    /// Which file uses which.
    fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (name, code) in &self.0 {
            for path in uses(code) {
                let Some(used) = absolute(name, &path).and_then(|path| self.file_of(&path)) else { continue };
                if !is_within(&used, name) && !is_within(name, &used) {
                    arrows.entry(name.clone()).or_default().insert(used);
                }
            }
        }
        arrows
    }
}

fn module(path: &Path) -> String {
    let mut path = PathBuf::from(path).with_extension("");
    if path.ends_with("mod") || path.ends_with("lib") || path.ends_with("main") {
        path.pop();
    }
    path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("::")
}

/// The code up to the tests within it.
fn without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The paths that a file's `use` declarations name.
fn uses(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find("use ") {
        let begins = rest[..start].lines().next_back().is_none_or(|before| {
            let before = before.trim_start();
            rest[..start].ends_with('\n') || before.is_empty() || (before.starts_with("pub") && before.ends_with(' '))
        });
        rest = &rest[start + 4..];
        if let (true, Some(end)) = (begins, rest.find(';')) {
            expand("", &rest[..end], &mut found);
        }
    }
    found
}

/// Takes `a::{b, c::{d}}` apart.
fn expand(before: &str, path: &str, found: &mut Vec<String>) {
    let Some((head, group)) = path.split_once('{') else {
        let path = path.split(" as ").next().unwrap_or_default();
        found.push(format!("{before}{}", path.trim()));
        return;
    };
    let (before, mut depth, mut start) = (format!("{before}{}", head.trim()), 0, 0);
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    for (at, letter) in group.char_indices().chain([(group.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    expand(&before, &group[start..at], found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// A path as from the top of `src`, if it leads there.
fn absolute(of: &str, path: &str) -> Option<Vec<String>> {
    let mut here = of.split("::").map(str::to_owned).collect::<Vec<_>>();
    let mut parts = path.split("::").peekable();
    match parts.peek().copied()? {
        "crate" => {
            parts.next();
            // A folder with a manifest is a crate of its own.
            let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&here[0]).join("Cargo.toml").exists();
            here.truncate(usize::from(own));
        }
        "self" => drop(parts.next()),
        "super" => {
            while parts.next_if_eq(&"super").is_some() {
                here.pop();
            }
        }
        "haft_sys" | "haft_worker" => here = vec![parts.next()?.trim_start_matches("haft_").to_owned()],
        _ => {}
    }
    Some(here.into_iter().chain(parts.map(str::to_owned)).collect())
}

fn is_within(inner: &str, outer: &str) -> bool {
    inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with("::"))
}

/// All that can be reached from one.
fn reach<'a>(arrows: &'a Arrows, from: &'a str) -> BTreeSet<&'a str> {
    let (mut reached, mut waiting) = (BTreeSet::new(), vec![from]);
    while let Some(next) = waiting.pop() {
        for used in arrows.get(next).into_iter().flatten() {
            if reached.insert(used.as_str()) {
                waiting.push(used);
            }
        }
    }
    reached
}

/// The sets whose members all reach each other.
fn circles(arrows: &Arrows) -> BTreeSet<Vec<String>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        arrows.keys().map(|from| (from.as_str(), reach(arrows, from))).collect();
    let is_back = |from: &str, to: &&&str| reached.get(**to).is_some_and(|back| back.contains(from));
    let sets = reached.iter().map(|(from, all)| all.iter().filter(|to| is_back(from, to)).map(|to| (*to).to_owned()));
    let sets = sets.map(Iterator::collect::<Vec<_>>);
    sets.filter(|set| !set.is_empty()).collect()
}

#[test]
fn files_use_each_other_in_one_direction() {
    let arrows = Modules::read().arrows();
    assert!(arrows.len() > 100, "the files were found: {}", arrows.len());
    let found = circles(&arrows);
    assert!(found.is_empty(), "files that reach each other by `use`: {found:#?}");
}

#[test]
fn folders_use_each_other_in_one_direction() {
    let folder = |name: &str| name.split("::").next().unwrap_or_default().to_owned();
    let mut arrows = Arrows::new();
    for (from, used) in Modules::read().arrows() {
        let others = used.iter().map(|to| folder(to)).filter(|to| *to != folder(&from));
        arrows.entry(folder(&from)).or_default().extend(others);
    }
    assert!(arrows.len() > 10, "the folders were found: {arrows:?}");
    let found = circles(&arrows);
    assert!(found.is_empty(), "folders that reach each other by `use`: {found:#?}");
}

#[test]
fn a_circle_is_found() {
    let arrow = |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(|to| (*to).to_owned()).collect());
    let arrows = Arrows::from([arrow("a", &["b"]), arrow("b", &["c", "d"]), arrow("c", &["a"]), arrow("d", &["e"])]);
    assert_eq!(circles(&arrows), BTreeSet::from([vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]]));
    let code = "pub use self::a::{B, c::{D, e as f}};\nuse super::g;\n";
    assert_eq!(uses(code), ["self::a::B", "self::a::c::D", "self::a::c::e", "super::g"]);
}

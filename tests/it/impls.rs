//! One type's behaviour stands in few files: a newcomer finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// At most so many files hold `impl` blocks of one type.
const FILES: usize = 3;

/// Types that stand in more files: the name, where it is declared, how many; with the reason.
const KNOWN: &[(&str, &str, usize)] = &[
    // One facade for a worker's requests, over parts that are types of their own: opening, serving, messages, rooms.
    ("ClusterPrimary", "node/primary", 7),
    // What is configured, and three judgements of it.
    ("Config", "config", 4),
    // One state machine: what is asked of it, and its three kinds of change.
    ("Pool", "pool", 4),
];

/// The name of the type in the first line of an inherent `impl` block, without its parameters.
fn implemented(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("impl")?;
    let rest = match rest.strip_prefix('<') {
        Some(generics) => generics.split_once("> ")?.1,
        None => rest.strip_prefix(' ')?,
    };
    let (name, _) = rest.split_once(['<', ' '])?;
    (!rest.contains(" for ") && !name.contains("::")).then_some(name)
}

/// Where the types of each folder's tree are implemented. A name that stands for types of several places counts for each
/// folder in which it is declared.
fn files_of_types() -> BTreeMap<(String, String), BTreeSet<String>> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources = sources(&top);
    let mut declared: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (path, text) in &sources {
        for line in text.lines() {
            let after = ["struct ", "enum "]
                .iter()
                .find_map(|word| line.split_once(word))
                .filter(|(before, _)| before.is_empty() || (before.starts_with("pub") && before.ends_with(' ')));
            let Some((_, name)) = after else { continue };
            let name = name.split(['<', ' ', '(', ';', '{']).next().unwrap_or_default();
            declared.entry(name.to_owned()).or_default().push(path.clone());
        }
    }
    let mut found: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for (path, text) in &sources {
        for name in text.lines().filter_map(implemented) {
            // The declaration that is nearest: it shares the longest part of the path.
            let shared = |other: &&PathBuf| path.iter().zip(other.iter()).take_while(|(one, two)| one == two).count();
            let Some(home) = declared.get(name).and_then(|homes| homes.iter().max_by_key(shared)) else { continue };
            let key = (name.to_owned(), home.display().to_string());
            found.entry(key).or_default().insert(path.display().to_string());
        }
    }
    found
}

/// The files of `src` but those that only tests use, with their code up to the tests within.
fn sources(top: &Path) -> Vec<(PathBuf, String)> {
    let mut waiting = vec![top.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of src") {
            let path = entry.expect("directory entry").path();
            let is_test = path
                .iter()
                .any(|part| ["tests", "tests.rs", "testing.rs", "simulation.rs"].iter().any(|it| part == *it));
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !is_test {
                let text = fs::read_to_string(&path).expect("a source file is text");
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
                found.push((path.strip_prefix(top).expect("below src").to_owned(), code));
            }
        }
    }
    found
}

#[test]
fn the_behaviour_of_a_type_stands_in_few_files() {
    let types = files_of_types();
    assert!(types.len() > 300, "only {} types found", types.len());
    let allowed = |name: &str, home: &str| {
        let known = KNOWN.iter().find(|(known, place, _)| *known == name && home.starts_with(place));
        known.map_or(FILES, |(_, _, files)| *files)
    };
    let scattered: Vec<_> = types
        .iter()
        .filter(|((name, home), files)| files.len() > allowed(name, home))
        .map(|((name, home), files)| format!("{name} ({home}): {files:?}"))
        .collect();
    assert!(scattered.is_empty(), "types whose behaviour stands in more than {FILES} files:\n{}", scattered.join("\n"));
    for (name, home, files) in KNOWN {
        let is =
            types.iter().find(|((it, place), _)| it == name && place.starts_with(home)).map(|(_, files)| files.len());
        assert_eq!(is, Some(*files), "{name} ({home}) is listed with another number");
    }
}

#[test]
fn impl_blocks_are_recognised() {
    assert_eq!(implemented("impl Master {"), Some("Master"));
    assert_eq!(implemented("impl<'a, T: Into<String>> View<'a, T> {"), Some("View"));
    assert_eq!(implemented("impl World<'_> {"), Some("World"));
    assert_eq!(implemented("impl fmt::Display for World {"), None);
    assert_eq!(implemented("impl Drop for World {"), None);
}

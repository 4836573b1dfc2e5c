//! Links: to files that are there, to headings that are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::{Document, documents};

/// The targets of `[text](target)` outside of code.
fn targets(document: &Document) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in document.lines(None) {
        let prose: String = line.split('`').step_by(2).collect();
        let after = prose.split("](").skip(1);
        found.extend(after.filter_map(|rest| Some((number, rest.split_once(')')?.0.to_owned()))));
    }
    found
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(document: &Document) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in document.lines(None) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let title = title.trim().to_lowercase();
        let kept = title.chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        let anchor: String = kept.map(|it| if it == ' ' { '-' } else { it }).collect();
        let again = (1..).map(|count| format!("{anchor}-{count}"));
        let fresh = std::iter::once(anchor.clone()).chain(again).find(|anchor| !anchors.contains(anchor));
        anchors.extend(fresh);
    }
    anchors
}

/// The path without `..`, from the top of the repository.
fn resolved(document: &Document, target: &str) -> PathBuf {
    let folder = Path::new(&document.path).parent().expect("a folder");
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{}: {target} leads out of the repository", document.path),
            part => path.push(part),
        }
    }
    path
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let documents = documents();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut checked, mut wrong) = (0, Vec::new());
    for document in &documents {
        for (number, target) in targets(document) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (file, anchor) = target.split_once('#').map_or((target.as_str(), None), |(file, to)| (file, Some(to)));
            let path = if file.is_empty() { PathBuf::from(&document.path) } else { resolved(document, file) };
            let led_to = documents.iter().find(|other| Path::new(&other.path) == path);
            let fault = match (root.join(&path).exists(), anchor, led_to) {
                (false, _, _) => "there is no such file",
                (true, Some(anchor), Some(other)) if !anchors(other).contains(anchor) => "it has no such heading",
                (true, Some(_), None) => "only headings of documents are known",
                _ => continue,
            };
            wrong.push(format!("{}: {target}: {fault}", document.at(number)));
        }
    }
    assert!(checked > 40, "only {checked} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A registry resolves the links of README.md against the repository that the manifest names. A page of the crate's
/// documentation has no such base: a document that is included there links to its own headings and to whole addresses.
#[test]
fn documents_that_are_crate_documentation_too_have_no_links_to_files() {
    let mut sources = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut included = BTreeSet::new();
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            sources.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            for after in text.split("doc = include_str!(\"").skip(1) {
                let target = path.parent().expect("a folder").join(after.split('"').next().unwrap_or_default());
                included.insert(target.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", target.display())));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().expect("the root");
    let mut checked = 0;
    for document in documents().iter().filter(|document| included.contains(&root.join(&document.path))) {
        checked += 1;
        for (number, target) in targets(document) {
            assert!(target.contains("://") || target.starts_with('#'), "{}: {target}", document.at(number));
        }
    }
    assert!(checked > 0, "no document is included in the crate's documentation");
}

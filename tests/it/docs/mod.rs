//! README.md and docs/*.md, held against the program: what they say to type works, what they say of flags is so, and
//! what they link to is there.

mod commands;
mod flags;
mod links;

use std::fs;
use std::path::Path;

/// A document: its path from the top of the repository, and its text.
struct Document {
    path: String,
    text: String,
}

/// A line of a document, with its number from 1.
type Line<'a> = (usize, &'a str);

fn documents() -> Vec<Document> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_docs = fs::read_dir(root.join("docs"))
        .expect("docs")
        .map(|entry| format!("docs/{}", entry.expect("an entry").file_name().to_string_lossy()));
    let examples = fs::read_dir(root.join("examples"))
        .expect("examples")
        .map(|entry| format!("examples/{}/README.md", entry.expect("an entry").file_name().to_string_lossy()));
    let top = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned);
    let mut paths: Vec<String> = in_docs.chain(examples).chain(top).filter(|path| path.ends_with(".md")).collect();
    paths.retain(|path| root.join(path).is_file());
    paths.sort();
    paths.into_iter().map(|path| Document { text: fs::read_to_string(root.join(&path)).expect("text"), path }).collect()
}

impl Document {
    /// The lines of fenced blocks in the shell's language, or outside of all blocks (`language` is none).
    fn lines(&self, language: Option<&str>) -> Vec<Line<'_>> {
        let mut block: Option<&str> = None;
        let mut found = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), block) {
                (Some(opened), None) => block = Some(opened.trim()),
                (Some(_), Some(_)) => block = None,
                (None, _) if block == language => found.push((index + 1, line)),
                (None, _) => {}
            }
        }
        assert_eq!(block, None, "{}: a block is not closed", self.path);
        found
    }

    /// What stands between backticks outside of blocks.
    fn code_spans(&self) -> Vec<Line<'_>> {
        let outside = self.lines(None).into_iter();
        outside.flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |span| (number, span))).collect()
    }

    /// Where a line is.
    fn at(&self, number: usize) -> String {
        format!("{}:{number}", self.path)
    }
}

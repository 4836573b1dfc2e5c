//! Looks through texts for a shell, and writes the commands in them anew where they must be others.

use std::ops::Range;

use super::look::{CHANNEL, Looker, Notes, Place, Seen, UNKNOWN};
use super::shell::{self, Script, Simple};
use super::{ProgramError, manager, node};

/// A part of a text, and what takes its place.
type Edit = (Range<usize>, String);

impl Looker<'_> {
    /// `sh -c TEXT [NAME ARGUMENTS...]` or `sh FILE ARGUMENTS...`.
    pub(super) fn shell(&mut self, command: &[String], place: &Place) -> Result<Seen, ProgramError> {
        let mut at = 1;
        let mut is_text = false;
        while let Some(option) = command.get(at).filter(|word| word.starts_with(['-', '+']) && word.len() > 1) {
            let letters = if option.starts_with("--") { "" } else { &option[1..] };
            is_text |= letters.contains('c');
            at += if letters.ends_with(['o', 'O']) { 2 } else { 1 };
        }
        let Some(word) = command.get(at) else { return Ok(Seen::default()) };
        if !is_text {
            let Some(text) = node::text(&place.folder.join(word)).filter(|_| self.is_for_start()) else {
                return Ok(Seen::default());
            };
            return self.file(&text, word, place);
        }
        let arguments = command.get(at + 2..).unwrap_or_default();
        let (node, instead) = self.text(word, arguments, place)?;
        let replace = |text| command[..at].iter().cloned().chain([text]).chain(command[at + 1..].iter().cloned());
        Ok(Seen { node, instead: instead.map(|text| replace(text).collect()) })
    }

    /// A script for a shell that is a file: it is looked at, and run as it is.
    pub(super) fn file(&mut self, text: &str, name: &str, place: &Place) -> Result<Seen, ProgramError> {
        let outer = self.notes.clone();
        let (node, instead) = self.text(text, &[], place)?;
        if instead.is_some() {
            self.notes = outer;
            self.notes.warnings.push(format!(
                "{name} starts Node by way of another Node program, which would keep the channel to itself: \
                 write the server's own command into it"
            ));
        }
        Ok(Seen { node, instead: None })
    }

    /// Looks at each command of a text. Gives whether it starts Node, and the text to use instead.
    pub(super) fn text(
        &mut self,
        text: &str,
        arguments: &[String],
        place: &Place,
    ) -> Result<(bool, Option<String>), ProgramError> {
        let Some(script) = shell::parse(text) else {
            return Ok((text.split_whitespace().any(node::is_node), None));
        };
        let mut looked = Vec::new();
        let mut place = place.clone();
        for command in &script.commands {
            let words = known(command, text, arguments);
            let outer = std::mem::take(&mut self.notes);
            let seen = self.command(&words, &place);
            let notes = std::mem::replace(&mut self.notes, outer);
            if let [cd, folder] = words.as_slice()
                && cd == "cd"
            {
                place.folder.push(folder);
            }
            looked.push(Looked { words, seen, notes });
        }
        let server = server(&script, &looked);
        let node = looked.iter().any(Looked::is_node);
        let mut edits = Vec::new();
        for (index, (command, looked)) in script.commands.iter().zip(looked).enumerate() {
            // What is no server may not take the channel, and what was found about it does not matter.
            if node && script.chain && server != Some(index) && self.is_for_start() {
                let takes = looked.is_node() || manager::is_one(&looked.words);
                edits.extend(takes.then(|| without_channel(command, text)));
                continue;
            }
            self.notes.add(looked.notes);
            let instead = looked.seen?.instead;
            edits.extend(instead.map(|instead| anew(command, text, &looked.words, &instead)));
        }
        Ok((node, (!edits.is_empty()).then(|| apply(text, edits))))
    }
}

/// What was found about one command of a text.
struct Looked {
    words: Vec<String>,
    seen: Result<Seen, ProgramError>,
    notes: Notes,
}

impl Looked {
    /// A failure counts: only Node's tools can bring one.
    fn is_node(&self) -> bool {
        self.seen.as_ref().map_or(true, |seen| seen.node)
    }
}

/// Which command of a chain is the server: of the last pipeline with Node in it the first that is Node.
fn server(script: &Script, looked: &[Looked]) -> Option<usize> {
    let node = || script.commands.iter().zip(looked).enumerate().filter(|(_, (_, looked))| looked.is_node());
    let last = node().next_back()?.1.0.pipeline;
    node().find(|(_, (command, _))| command.pipeline == last).map(|(index, _)| index)
}

/// The words of a command; in place of one that only a running shell can tell a mark and the number of that word.
fn known(command: &Simple, text: &str, arguments: &[String]) -> Vec<String> {
    let mut words = Vec::new();
    for (index, word) in command.words.iter().enumerate().filter(|(_, word)| !word.redirection) {
        let raw = &text[word.at.clone()];
        match &word.text {
            Some(text) => words.push(text.clone()),
            None if raw == "\"$@\"" && !arguments.is_empty() => words.extend(arguments.iter().cloned()),
            None => {
                let name = shell::assignment(raw).map_or(0, |(name, _)| name.len() + 1);
                words.push(format!("{}{UNKNOWN}{index}", &raw[..name]));
            }
        }
    }
    words
}

/// The command in other words. Those that it had before are written as they were, redirections come last.
fn anew(command: &Simple, text: &str, before: &[String], instead: &[String]) -> Edit {
    let raw = |word: &String| {
        if let Some((_, index)) = word.split_once(UNKNOWN) {
            let at = index.parse().ok().and_then(|index: usize| command.words.get(index)).map(|word| word.at.clone());
            return at.map_or_else(String::new, |at| text[at].to_owned());
        }
        let same = command.words.iter().find(|old| old.text.as_ref() == Some(word)).filter(|_| before.contains(word));
        same.map_or_else(|| shell::quote_assignment(word), |old| text[old.at.clone()].to_owned())
    };
    let redirections =
        command.words.iter().filter(|word| word.redirection).map(|word| text[word.at.clone()].to_owned());
    let words: Vec<String> = instead.iter().map(raw).chain(redirections).collect();
    (span(command), words.join(" "))
}

/// The command as it was, without what would make it a worker. Its assignments stay in front.
fn without_channel(command: &Simple, text: &str) -> Edit {
    let start = program(command, text).unwrap_or_else(|| span(command).start);
    (start..start, format!("env -u {} ", CHANNEL.join(" -u ")))
}

/// Where the program of a command is written, behind assignments and redirections.
fn program(command: &Simple, text: &str) -> Option<usize> {
    let is = |word: &&shell::Word| !word.redirection && shell::assignment(&text[word.at.clone()]).is_none();
    command.words.iter().find(is).map(|word| word.at.start)
}

fn span(command: &Simple) -> Range<usize> {
    let start = command.words.first().map_or(0, |word| word.at.start);
    start..command.words.last().map_or(start, |word| word.at.end)
}

/// From the last edit to the first, so that places stay right.
fn apply(text: &str, edits: Vec<Edit>) -> String {
    let mut text = text.to_owned();
    for (at, new) in edits.into_iter().rev() {
        text.replace_range(at, &new);
    }
    text
}

/// With `exec` before its last command, so that no shell waits beside the server. As it was if that is not certain.
pub fn exec(text: &str) -> String {
    let text = text.trim();
    let Some(script) = shell::parse(text).filter(|script| script.chain) else { return text.to_owned() };
    let Some(last) = script.commands.last() else { return text.to_owned() };
    let alone = script.commands.iter().filter(|command| command.pipeline == last.pipeline).count() == 1;
    let ends = span(last).end == text.len();
    let place = program(last, text).filter(|_| alone && ends);
    let word = |at: usize| last.words.iter().find(|word| word.at.start == at).and_then(|word| word.text.as_deref());
    match place.map(|at| (at, word(at))) {
        Some((at, Some(program))) if !BUILT_IN.contains(&program) => format!("{}exec {}", &text[..at], &text[at..]),
        _ => text.to_owned(),
    }
}

/// Words of the shell itself, which exec cannot start.
const BUILT_IN: &[&str] = &[
    ".", ":", "[", "alias", "bg", "break", "builtin", "cd", "command", "continue", "echo", "eval", "exec", "exit",
    "export", "false", "fg", "getopts", "hash", "jobs", "printf", "read", "readonly", "return", "set", "shift",
    "source", "test", "times", "trap", "true", "type", "ulimit", "umask", "unalias", "unset", "wait",
];

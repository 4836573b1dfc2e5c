//! What npm, yarn and pnpm would run, to be run without them: each is itself Node and would keep the channel to itself.

use std::path::{Path, PathBuf};

use super::look::{Looker, Place, Seen, UNKNOWN};
use super::manager::{Asked, What};
use super::package::{self, Package};
use super::{ProgramError, shell, text};

/// Deeper than any sensible chain of scripts that call each other.
const MAX_DEPTH: u32 = 16;

impl Looker<'_> {
    /// What a package manager is asked for, in words that do without it.
    pub(super) fn managed(&mut self, asked: &Asked, place: &Place) -> Result<Seen, ProgramError> {
        if self.depth >= MAX_DEPTH {
            return Err(ProgramError::Loop { saying: asked.saying.clone() });
        }
        self.depth += 1;
        let seen = self.found(asked, place);
        self.depth -= 1;
        let seen = seen?;
        let used = seen.node || self.forced();
        Ok(Seen { node: seen.node, instead: seen.instead.filter(|_| used) })
    }

    fn found(&mut self, asked: &Asked, started: &Place) -> Result<Seen, ProgramError> {
        let saying = || asked.saying.clone();
        let mut place = started.clone();
        place.folder.extend(&asked.folder);
        let place = &place;
        let from = started.folder.as_path();
        match &asked.what {
            What::Workspace(member) => Err(ProgramError::Workspace { saying: saying(), member: member.clone() }),
            What::Text(text) => self.run_text(text, asked, place, Vec::new(), from),
            What::Program(program) => self.run_program(program, asked, place, from),
            What::Nothing => {
                let package = Package::nearest(&place.folder)?;
                Err(ProgramError::Unnamed { saying: saying(), known: known(package.as_ref()) })
            }
            What::Script(name) | What::ScriptOrProgram(name) => {
                let package = Package::nearest(&place.folder)?;
                if let Some((package, text)) =
                    package.as_ref().and_then(|package| Some((package, package.script(name)?)))
                {
                    return self.run_script(name, &text, package, asked, started);
                }
                if matches!(asked.what, What::ScriptOrProgram(_)) && installed(name, &package::bins(&place.folder)) {
                    return self.run_program(name, asked, place, from);
                }
                Err(match package {
                    None => ProgramError::NoPackage { saying: saying(), folder: place.folder.clone() },
                    Some(package) => ProgramError::NoScript {
                        saying: saying(),
                        name: name.clone(),
                        known: known(Some(&package)),
                        file: package.folder.join("package.json"),
                    },
                })
            }
        }
    }

    fn run_script(
        &mut self,
        name: &str,
        text: &str,
        package: &Package,
        asked: &Asked,
        place: &Place,
    ) -> Result<Seen, ProgramError> {
        let mut environment = package.environment(name, &self.started_in);
        environment.retain(|entry| !self.environment.contains(entry));
        let inside = Place { folder: package.folder.clone(), ..place.clone() };
        let outer = self.environment.clone();
        self.environment.retain(|(name, _)| environment.iter().all(|(new, _)| new != name));
        self.environment.extend(environment.iter().cloned());
        let seen = self.run_text(text, asked, &inside, environment, &place.folder);
        self.environment = outer;
        for (around, text) in package.around(name) {
            self.notes.warnings.push(format!(
                "{}: its script {around} ({text}) is not run, since there are many workers and each can be replaced at \
                 any time: run it yourself where it is needed (npm run {around})",
                asked.saying
            ));
        }
        seen
    }

    /// `sh -c TEXT` in the folder of `place`, with its installed programs in PATH. `from` is where the shell starts.
    fn run_text(
        &mut self,
        text: &str,
        asked: &Asked,
        place: &Place,
        mut environment: Vec<(String, String)>,
        from: &Path,
    ) -> Result<Seen, ProgramError> {
        let arguments = if asked.arguments.is_empty() { "" } else { " \"$@\"" };
        let text = text::exec(&format!("{}{arguments}", text.trim()));
        let (place, path) = with_bins(place);
        let (node, instead) = self.text(&text, &asked.arguments, &place)?;
        let mut text = instead.unwrap_or(text);
        if from != place.folder {
            text = format!("cd {} || exit; {text}", shell::quote(&place.folder.to_string_lossy()));
        }
        environment.extend(path);
        let script = [String::from("sh"), String::from("-c"), text];
        let name = (!asked.arguments.is_empty()).then(|| "sh".to_owned());
        let words: Vec<String> = script.into_iter().chain(name).chain(asked.arguments.iter().cloned()).collect();
        self.say(asked, node, &words);
        Ok(Seen { node, instead: Some(in_environment(environment, words)) })
    }

    fn run_program(&mut self, program: &str, asked: &Asked, place: &Place, from: &Path) -> Result<Seen, ProgramError> {
        let (place, path) = with_bins(place);
        if !program.contains('/') && !installed(program, &place.path) {
            let (saying, program) = (asked.saying.clone(), program.to_owned());
            return Err(ProgramError::NotInstalled { saying, program, folder: place.folder });
        }
        if asked.folder.is_some() {
            return self.run_text(&shell::quote(program), asked, &place, Vec::new(), from);
        }
        let words: Vec<String> = std::iter::once(program.to_owned()).chain(asked.arguments.iter().cloned()).collect();
        let seen = self.command(&words, &place)?;
        let words = seen.instead.unwrap_or(words);
        self.say(asked, seen.node, &words);
        Ok(Seen { node: seen.node, instead: Some(in_environment(path.into_iter().collect(), words)) })
    }

    fn say(&mut self, asked: &Asked, node: bool, words: &[String]) {
        // What a script calls in its turn is part of what is said of it.
        if self.depth == 1 && (node || self.forced()) {
            let shown = |word: &String| if word.contains(UNKNOWN) { "$...".to_owned() } else { shell::quote(word) };
            self.notes.said.push(format!(
                "{} is run as: {} - because {} would keep the channel to itself",
                asked.saying,
                words.iter().map(shown).collect::<Vec<_>>().join(" "),
                asked.saying.split(' ').next().unwrap_or_default(),
            ));
        }
    }
}

/// The place with its installed programs before the others, and PATH if it must be another for that.
fn with_bins(place: &Place) -> (Place, Option<(String, String)>) {
    let bins: Vec<PathBuf> = package::bins(&place.folder).into_iter().filter(|bin| bin.is_dir()).collect();
    if bins.is_empty() || place.path.starts_with(&bins) {
        return (place.clone(), None);
    }
    let path: Vec<PathBuf> = bins.into_iter().chain(place.path.iter().cloned()).collect();
    let text = path.iter().map(|folder| folder.to_string_lossy()).collect::<Vec<_>>().join(":");
    (Place { folder: place.folder.clone(), path }, Some(("PATH".to_owned(), text)))
}

fn installed(program: &str, folders: &[PathBuf]) -> bool {
    folders.iter().any(|folder| folder.join(program).is_file())
}

fn in_environment(environment: Vec<(String, String)>, words: Vec<String>) -> Vec<String> {
    if environment.is_empty() {
        return words;
    }
    let assignments = environment.into_iter().map(|(name, value)| format!("{name}={value}"));
    std::iter::once("env".to_owned()).chain(assignments).chain(words).collect()
}

/// The names of the scripts there are.
fn known(package: Option<&Package>) -> String {
    let names: Vec<&str> = package.iter().flat_map(|package| package.scripts.keys()).map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

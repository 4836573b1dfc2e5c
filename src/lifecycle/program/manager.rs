//! The command lines of npm, yarn and pnpm: which script, or which program, they ask for.

use super::node::base_name;

/// What a package manager is asked to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// What.
    pub what: What,
    /// What the script or the program gets.
    pub arguments: Vec<String>,
    /// The folder to do it in, if it was named.
    pub folder: Option<String>,
    /// How it was asked for, for people: `npm start`, `yarn run dev`.
    pub saying: String,
}

/// The thing to run.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A script of package.json.
    Script(String),
    /// A script of package.json if there is one of this name, otherwise an installed program.
    ScriptOrProgram(String),
    /// An installed program.
    Program(String),
    /// A text for a shell (`npx -c`).
    Text(String),
    /// A script, but none is named.
    Nothing,
    /// One member of a workspace.
    Workspace(String),
}

/// One family of command lines.
struct Manager {
    name: &'static str,
    /// Options whose value is the next word.
    valued: &'static [&'static str],
    folder: &'static [&'static str],
    workspace: &'static [&'static str],
    /// Verbs that are scripts of the same name.
    scripts: &'static [&'static str],
    /// Verbs that run the script named next.
    run: &'static [&'static str],
    /// Verbs that run the program named next.
    exec: &'static [&'static str],
    /// Whether a verb that is neither is a script or a program by itself.
    bare: bool,
    /// Verbs that it keeps for itself; such a word is no script.
    own: &'static [&'static str],
}

const LIFECYCLE: &[&str] = &["start", "stop", "restart", "test"];
const HOUSEKEEPING: &[&str] = &[
    "add",
    "audit",
    "cache",
    "config",
    "create",
    "help",
    "import",
    "info",
    "init",
    "install",
    "link",
    "list",
    "login",
    "outdated",
    "pack",
    "publish",
    "remove",
    "set",
    "unlink",
    "up",
    "update",
    "upgrade",
    "version",
    "why",
    "workspaces",
];

const MANAGERS: &[Manager] = &[
    Manager {
        name: "npm",
        valued: &["--loglevel", "--script-shell", "--userconfig", "--cache", "-p", "--package", "-c", "--call"],
        folder: &["--prefix", "-C"],
        workspace: &["-w", "--workspace"],
        scripts: LIFECYCLE,
        run: &["run", "run-script", "rum", "urn"],
        exec: &["exec", "x"],
        bare: false,
        own: &[],
    },
    Manager {
        name: "yarn",
        valued: &["--modules-folder", "--mutex", "--registry"],
        folder: &["--cwd"],
        workspace: &["workspace"],
        scripts: &[],
        run: &["run"],
        exec: &["exec", "node"],
        bare: true,
        own: HOUSEKEEPING,
    },
    Manager {
        name: "pnpm",
        valued: &["--loglevel", "--reporter"],
        folder: &["-C", "--dir"],
        workspace: &["--filter", "-F"],
        scripts: LIFECYCLE,
        run: &["run", "run-script"],
        exec: &["exec", "node"],
        bare: true,
        own: HOUSEKEEPING,
    },
    Manager {
        name: "npx",
        valued: &["-p", "--package", "-c", "--call", "--cache", "--userconfig"],
        folder: &["--prefix"],
        workspace: &["-w", "--workspace"],
        scripts: &[],
        run: &[],
        exec: &[],
        bare: true,
        own: &[],
    },
];

/// Whether the program is a package manager: itself a Node program.
pub fn is_one(command: &[String]) -> bool {
    command.first().is_some_and(|program| MANAGERS.iter().any(|manager| manager.name == base_name(program)))
}

/// What is asked for, if this is a package manager and it is asked to run something.
pub fn asked(command: &[String]) -> Option<Asked> {
    let (program, rest) = command.split_first()?;
    let name = match base_name(program) {
        "yarnpkg" => "yarn",
        name => name,
    };
    let manager = MANAGERS.iter().find(|manager| manager.name == name)?;
    let mut line = Line { manager, words: rest, at: 0, folder: None, workspace: None, call: None, dashes: false };
    let verb = if name == "npx" { None } else { Some(line.next()?) };
    let what = match verb {
        None => line.program(What::Program),
        Some(verb) if manager.workspace.contains(&verb) => What::Workspace(line.next()?.to_owned()),
        Some("t" | "tst") if name == "npm" => What::Script("test".to_owned()),
        Some(verb) if manager.scripts.contains(&verb) => What::Script(verb.to_owned()),
        // Whoever writes `yarn node x.js` means the program node.
        Some("node") if manager.exec.contains(&"node") => What::Program("node".to_owned()),
        Some(verb) if manager.exec.contains(&verb) => line.program(What::Program),
        Some(verb) if manager.run.contains(&verb) => match line.next() {
            Some(script) if manager.bare => What::ScriptOrProgram(script.to_owned()),
            Some(script) => What::Script(script.to_owned()),
            None => What::Nothing,
        },
        Some(verb) if manager.bare && !manager.own.contains(&verb) => What::ScriptOrProgram(verb.to_owned()),
        Some(_) => return None,
    };
    let saying = [name].into_iter().chain(rest[..line.at].iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    let arguments = line.arguments(name == "npm" && !line.dashes, name == "yarn");
    let what = line.workspace.map_or(what, |member| What::Workspace(member.to_owned()));
    Some(Asked { what, arguments, folder: line.folder.map(str::to_owned), saying })
}

/// The words after the manager's name, read from the left.
struct Line<'a> {
    manager: &'static Manager,
    words: &'a [String],
    at: usize,
    folder: Option<&'a str>,
    workspace: Option<&'a str>,
    call: Option<&'a str>,
    /// The `--` that ends the manager's own options has been passed.
    dashes: bool,
}

impl<'a> Line<'a> {
    /// The next word that is no option. Options on the way are taken in.
    fn next(&mut self) -> Option<&'a str> {
        while let Some(word) = self.words.get(self.at) {
            self.at += 1;
            if !word.starts_with('-') {
                return Some(word);
            }
            match word.as_str() {
                "--" => self.dashes = true,
                word => self.option(word),
            }
        }
        None
    }

    fn option(&mut self, word: &'a str) {
        let (option, attached) = word.split_once('=').map_or((word, None), |(option, value)| (option, Some(value)));
        let manager = self.manager;
        let known = [manager.valued, manager.folder, manager.workspace].iter().any(|list| list.contains(&option));
        if !known {
            return;
        }
        let value = attached.or_else(|| self.words.get(self.at).map(String::as_str));
        self.at += usize::from(attached.is_none());
        if manager.folder.contains(&option) {
            self.folder = value;
        } else if manager.workspace.contains(&option) {
            self.workspace = value;
        } else if matches!(option, "-c" | "--call") {
            self.call = value;
        }
    }

    fn program(&mut self, what: fn(String) -> What) -> What {
        let next = self.next();
        match (self.call, next) {
            (Some(text), _) => What::Text(text.to_owned()),
            (None, Some(program)) => what(program.to_owned()),
            (None, None) => What::Nothing,
        }
    }

    /// What is left for the script. npm takes options before `--` for its own; yarn drops a leading `--`.
    fn arguments(&mut self, options_are_ours: bool, drop_dashes: bool) -> Vec<String> {
        if options_are_ours {
            let mut arguments = Vec::new();
            while self.at < self.words.len() && self.words[self.at] != "--" {
                let word = self.words[self.at].as_str();
                self.at += 1;
                if word.starts_with('-') { self.option(word) } else { arguments.push(word.to_owned()) }
            }
            arguments.extend(self.words.iter().skip(self.at + 1).cloned());
            return arguments;
        }
        let rest = self.words.get(self.at..).unwrap_or_default();
        let rest = rest.strip_prefix(&["--".to_owned()]).filter(|_| drop_dashes).unwrap_or(rest);
        rest.to_vec()
    }
}

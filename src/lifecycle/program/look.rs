//! Looks through a command line, and what it leads to, for a start of Node: through prefixes, shells, package managers
//! and scripts. Where a package manager would keep the channel to itself, what it would run takes its place.

use std::path::PathBuf;

use super::inspect::Ports;
use super::manager::{self, Asked, What};
use super::prefix::{self, Prefix};
use super::{ProgramError, node, shell};

/// What a worker of Node learns its channel from. They must reach the server, and nothing of Node that runs before.
pub const CHANNEL: [&str; 3] = ["NODE_CHANNEL_FD", "NODE_UNIQUE_ID", "NODE_CHANNEL_SERIALIZATION_MODE"];

/// Where a command line is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The working directory.
    pub folder: PathBuf,
    /// Where programs are looked for.
    pub path: Vec<PathBuf>,
}

/// What looking has brought.
#[derive(Debug, Default, PartialEq)]
pub struct Seen {
    /// It starts Node.
    pub node: bool,
    /// The same thing in other words, if those must be used.
    pub instead: Option<Vec<String>>,
}

/// Stands in a word for what only a running shell can tell; no argument of a process can contain it.
pub const UNKNOWN: char = '\0';

/// What people should know.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Notes {
    /// What was decided.
    pub said: Vec<String>,
    /// What will probably go wrong.
    pub warnings: Vec<String>,
}

impl Notes {
    pub(super) fn add(&mut self, more: Self) {
        self.said.extend(more.said);
        self.warnings.extend(more.warnings);
    }
}

/// What a look is for.
pub enum Aim<'a> {
    /// To find what to start.
    Start {
        /// Whether package managers are replaced even where no Node was found: the user says that it is Node.
        forced: bool,
    },
    /// To give the inspector of one worker a port of its own.
    Ports(&'a Ports),
}

/// One look through a command line.
pub struct Looker<'a> {
    /// What for.
    pub aim: Aim<'a>,
    /// The working directory of haft itself.
    pub started_in: PathBuf,
    /// What scripts have put into the environment so far.
    pub environment: Vec<(String, String)>,
    /// What people should know.
    pub notes: Notes,
    /// How many scripts led to each other.
    pub depth: u32,
}

impl<'a> Looker<'a> {
    /// A look that has seen nothing yet.
    pub fn new(aim: Aim<'a>) -> Self {
        Self { aim, started_in: PathBuf::new(), environment: Vec::new(), notes: Notes::default(), depth: 0 }
    }

    /// Whether package managers are looked through, and files read.
    pub(super) fn is_for_start(&self) -> bool {
        matches!(self.aim, Aim::Start { .. })
    }

    /// Whether the user says that it is Node.
    pub(super) fn forced(&self) -> bool {
        matches!(self.aim, Aim::Start { forced: true })
    }

    /// Looks at the words of a command.
    pub fn command(&mut self, command: &[String], place: &Place) -> Result<Seen, ProgramError> {
        let Some(program) = command.first() else { return Ok(Seen::default()) };
        if let Some(prefix) = prefix::prefix(command) {
            return self.prefixed(command, &prefix, place);
        }
        if node::is_node(program) {
            return self.node(command, place);
        }
        if node::is_shell(program) {
            return self.shell(command, place);
        }
        if manager::is_one(command) {
            let asked = manager::asked(command).filter(|_| self.is_for_start());
            return asked.map_or_else(|| Ok(Seen::default()), |asked| self.managed(&asked, place));
        }
        match node::base_name(program) {
            "cross-env" => self.cross_env(command, place),
            "corepack" => self.command(&command[1..], place),
            _ => self.program(command, place),
        }
    }

    fn prefixed(&mut self, command: &[String], prefix: &Prefix, place: &Place) -> Result<Seen, ProgramError> {
        let (before, after) = command.split_at(prefix.words.min(command.len()));
        let mut place = place.clone();
        place.folder.extend(prefix.folder);
        if let Some(split) = &prefix.split {
            // What one option held becomes words of their own: `env -S "-i A=1 node"` is `env -i A=1 node`.
            let options = before.iter().take_while(|word| !word.starts_with("-S") && !word.starts_with("--split"));
            let words: Vec<String> = options.chain(split).chain(after).cloned().collect();
            let seen = self.command(&words, &place)?;
            return Ok(Seen { instead: seen.instead.or_else(|| seen.node.then_some(words)), ..seen });
        }
        let seen = self.command(after, &place)?;
        if let Some(trouble) = prefix.trouble.filter(|_| seen.node) {
            self.notes.warnings.push(format!("{} {trouble}", before[0]));
        }
        if prefix.clears && seen.node && self.is_for_start() {
            let inner = seen.instead.unwrap_or_else(|| after.to_vec());
            return Ok(Seen { node: true, instead: self.keep_channel(before, inner) });
        }
        let before = self.options_of_worker(before);
        let instead = match (before, seen.instead) {
            (Some(before), inner) => Some((before, inner.unwrap_or_else(|| after.to_vec()))),
            (None, inner) => inner.map(|inner| (command[..command.len() - after.len()].to_vec(), inner)),
        };
        Ok(Seen { node: seen.node, instead: instead.map(|(before, inner)| [before, inner].concat()) })
    }

    /// The prefix with NODE_OPTIONS as one worker needs them, if they must be others.
    fn options_of_worker(&self, prefix: &[String]) -> Option<Vec<String>> {
        let Aim::Ports(ports) = self.aim else { return None };
        let at = prefix.iter().position(|word| word.starts_with("NODE_OPTIONS="))?;
        let mut prefix = prefix.to_vec();
        prefix[at] = format!("NODE_OPTIONS={}", ports.options(&prefix[at]["NODE_OPTIONS=".len()..])?);
        Some(prefix)
    }

    /// `env -i` would take the channel away from Node: what it says is kept, and the channel's variables are set again.
    fn keep_channel(&mut self, env: &[String], inner: Vec<String>) -> Option<Vec<String>> {
        let (options, assigned) = env.split_at(env.iter().take_while(|word| shell::assignment(word).is_none()).count());
        let options: Vec<String> = options.iter().filter(|word| *word != "--").cloned().collect();
        if options.iter().any(|option| option.contains(UNKNOWN)) {
            self.notes
                .warnings
                .push(format!("env -i takes away what Node needs to be a worker: {}", CHANNEL.join(", ")));
            return None;
        }
        let options = shell::join(&options);
        let channel = CHANNEL.map(|name| format!("{name}=\"${{{name}-}}\"")).join(" ");
        self.notes.said.push(format!("{options} passes on what Node needs to be a worker: {}", CHANNEL.join(", ")));
        let shell = ["sh".to_owned(), "-c".to_owned(), format!("exec {options} {channel} \"$@\""), "sh".to_owned()];
        Some([&shell, assigned, inner.as_slice()].concat())
    }

    fn node(&mut self, command: &[String], place: &Place) -> Result<Seen, ProgramError> {
        let options = node::own_options(command);
        // `node --run NAME` is what npm run NAME would be.
        if let Some(run) =
            command[options.clone()].iter().position(|option| option == "--run" || option.starts_with("--run="))
        {
            let (option, rest) = (&command[1 + run], &command[2 + run..]);
            let (name, rest) = match option.split_once('=') {
                Some((_, name)) => (name, rest),
                None => (rest.first().map_or("", String::as_str), rest.get(1..).unwrap_or_default()),
            };
            let arguments = rest.iter().filter(|word| *word != "--").cloned().collect();
            let saying = format!("node --run {name}");
            let asked = Asked { what: What::Script(name.to_owned()), arguments, folder: None, saying };
            return self.managed(&asked, place);
        }
        if let Some(trouble) = node::trouble(command) {
            self.notes.warnings.push(format!("{} {trouble}", shell::join(command)));
        }
        let instead = match self.aim {
            Aim::Ports(ports) => ports.node(command),
            Aim::Start { .. } => None,
        };
        Ok(Seen { node: true, instead })
    }

    /// `cross-env A=1 node x.js` is Node and starts Node: env(1) does the same and keeps nothing.
    fn cross_env(&mut self, command: &[String], place: &Place) -> Result<Seen, ProgramError> {
        let env: Vec<String> = std::iter::once("env".to_owned()).chain(command[1..].iter().cloned()).collect();
        let seen = self.command(&env, place)?;
        Ok(Seen { instead: seen.instead.or_else(|| seen.node.then_some(env)), node: seen.node })
    }

    /// A program that is none of those known by name: a script perhaps, or a runner with `--` before its command.
    fn program(&mut self, command: &[String], place: &Place) -> Result<Seen, ProgramError> {
        if let Some(cure) = node::instead_of(&command[0]) {
            self.notes.warnings.push(format!(
                "{} is itself a Node program and starts another one, which gets no channel from haft: give haft `{cure}`",
                node::base_name(&command[0])
            ));
            return Ok(Seen { node: true, instead: None });
        }
        match node::script(&command[0], place).filter(|_| self.is_for_start()) {
            Some(node::Script::Shell(text)) => self.file(&text, &command[0], place),
            Some(node::Script::Interpreted(words)) => self.interpreted(&words, command, place),
            None => {
                let after = command.iter().position(|word| word == "--").map_or(command.len(), |dashes| dashes + 1);
                let seen = self.command(&command[after..], place)?;
                Ok(seen.map(|inner| command[..after].iter().cloned().chain(inner).collect()))
            }
        }
    }

    fn interpreted(&mut self, line: &[String], command: &[String], place: &Place) -> Result<Seen, ProgramError> {
        // An interpreter that is a script of its own is not followed. The kernel starts what the first line says: it
        // cannot be put into other words.
        if !node::is_node(&line[0]) && node::base_name(&line[0]) != "env" {
            return Ok(Seen::default());
        }
        let words: Vec<String> = line.iter().chain(command).cloned().collect();
        Ok(Seen { instead: None, ..self.command(&words, place)? })
    }
}

impl Place {
    /// Where there is nothing.
    pub(super) fn nowhere() -> Self {
        Self { folder: PathBuf::from("/dev/null"), path: Vec::new() }
    }
}

impl Seen {
    /// The same with other words around what is to be used instead.
    pub(super) fn map(self, around: impl FnOnce(Vec<String>) -> Vec<String>) -> Self {
        Self { instead: self.instead.map(around), ..self }
    }
}

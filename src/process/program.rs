//! What COMMAND is: whether it leads to Node, and whether it is plainly `node FILE`.
//!
//! What is plainly that, or a script of package.json that is no more than that, is started directly: Node opens its channel
//! by itself, and no process of a package manager stays beside each worker. Everything else is started as it stands, and
//! the preload opens the channel in the process that serves (`src/node/preload/channel.cjs`).
//!
//! It reads files (package.json, the first line of scripts), and does nothing else.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;

pub mod channel;
mod detect;
pub mod inspect;
pub mod node;
mod package;
mod plain;
pub mod script;
#[cfg(test)]
mod tests;

pub use package::PackageError;

use detect::Runtime;
use package::Package;

/// What is spoken on the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// haft's own.
    Haft,
    /// That of Node's cluster.
    Node,
    /// None: the program takes its listeners over.
    ListenFds,
}

/// Where a command line is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchContext {
    /// The working directory.
    pub folder: PathBuf,
    /// Where programs are looked for.
    pub path: Vec<PathBuf>,
}

/// A command, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Recognised {
    /// What to speak with it.
    pub dialect: Dialect,
    /// What to start; never empty.
    pub command: Vec<String>,
    /// NODE_OPTIONS that the command's own words set.
    pub node_options: Option<String>,
    /// The process that is started may not be the one that serves: Node must not find its channel by itself.
    pub is_wrapped: bool,
    /// What the workers run, in words for the log.
    pub shown: String,
    /// Whether it leads to Node as far as can be seen: a command that only the flags call Node's may be another program
    /// that speaks as Node does.
    pub seems_node: bool,
    /// Whether it runs on Node itself. Deno and Bun take options as they like.
    pub runs_on_node: bool,
    /// What will probably go wrong, and the cure; for the log.
    pub warnings: Vec<String>,
}

/// Why a command cannot be started as it was typed.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// A script is asked for, and there is no package.json.
    #[error(
        "{saying}: there is no package.json in {} or above it: go to the program's folder, \
         or give haft the command itself (haft -- node server.js)", folder.display()
    )]
    NoPackage {
        /// What was typed.
        saying: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// package.json has no such script.
    #[error("{saying}: {} has no script {name:?}; it has: {known}", file.display())]
    NoScript {
        /// What was typed.
        saying: String,
        /// The script.
        name: String,
        /// The package.json.
        file: PathBuf,
        /// The scripts there are.
        known: String,
    },
    /// A package.json that is of no use.
    #[error(transparent)]
    Package(#[from] PackageError),
}

impl LaunchContext {
    /// Where this process is.
    ///
    /// # Errors
    ///
    /// When the working directory is gone or cannot be reached.
    pub fn here() -> io::Result<Self> {
        let path = std::env::var_os("PATH");
        let path = std::env::split_paths(path.as_deref().unwrap_or(OsStr::new("/usr/bin:/bin"))).collect();
        Ok(Self { folder: std::env::current_dir()?, path })
    }
}

/// The texts in which a start of Node may stand that only a shell or a package manager sees: options of Node are looked
/// for there.
pub fn texts(command: &[String], place: &LaunchContext) -> Vec<String> {
    let scripts = Package::nearest(&place.folder).ok().flatten().map(|package| package.scripts).unwrap_or_default();
    command.iter().filter(|word| word.contains(' ')).cloned().chain(scripts.into_values()).collect()
}

/// Looks at a command line (never empty) as it would be started at `place`. `asked` is the dialect that the user wants,
/// if one was named: then only what to start is looked for.
///
/// # Errors
///
/// When a script is asked for that is not there.
pub fn recognise(
    command: &[String],
    place: &LaunchContext,
    asked: Option<Dialect>,
) -> Result<Recognised, ProgramError> {
    let as_it_stands = |dialect, is_wrapped| Recognised {
        dialect,
        command: command.to_vec(),
        node_options: None,
        is_wrapped,
        shown: command.join(" "),
        seems_node: true,
        runs_on_node: true,
        warnings: Vec::new(),
    };
    // Their channels have other names, which pass through package managers.
    if let Some(dialect @ (Dialect::Haft | Dialect::ListenFds)) = asked {
        return Ok(as_it_stands(dialect, false));
    }
    if plain::is_node_with_file(command) {
        return Ok(as_it_stands(Dialect::Node, false));
    }
    if let Some((node_options, command)) = plain::of_env(command) {
        let runs_on_node = !command.iter().any(|word| node::base_name(word) == "deno");
        return Ok(Recognised { command, node_options, runs_on_node, ..as_it_stands(Dialect::Node, false) });
    }
    let mut warnings = Vec::new();
    if let Some(asked) = plain::script_asked(command) {
        match script(&asked, place)? {
            Started::Directly(recognised) => return Ok(recognised),
            Started::AsItStands(more) => warnings.extend(more),
        }
    }
    let runtime = detect::leads_to(command, place);
    if asked.is_none() && runtime.is_none() {
        return Ok(as_it_stands(Dialect::Haft, false));
    }
    // Without the preload the first process that knows the channel opens it.
    let runs_on_node = matches!(runtime, Some(Runtime::Node) | None);
    let mut recognised = as_it_stands(Dialect::Node, runs_on_node);
    (recognised.seems_node, recognised.runs_on_node) = (runtime.is_some(), runs_on_node);
    recognised.warnings = warnings;
    recognised.warnings.extend(node::trouble(command).or_else(|| runtime.and_then(|runtime| below(runtime, command))));
    keep_variables(&mut recognised.command);
    Ok(recognised)
}

/// What another runtime than Node cannot do below what starts it, and the cure.
fn below(runtime: Runtime, command: &[String]) -> Option<String> {
    let manager = command.iter().find(|word| node::is_manager(node::base_name(word)));
    match (runtime, manager) {
        (Runtime::Node, _) | (Runtime::Deno, None) => None,
        (Runtime::Deno, Some(manager)) => Some(format!(
            "{manager} is a program of Node's and takes the channel that is meant for Deno: give haft the command that it runs \
             (haft -- deno run FILE)"
        )),
        (Runtime::Bun, _) => node::trouble(&["bun".to_owned()]),
    }
}

/// How a script of package.json is started.
enum Started {
    /// Without the package manager.
    Directly(Recognised),
    /// By it; with a warning.
    AsItStands(Option<String>),
}

fn script(asked: &plain::Asked<'_>, place: &LaunchContext) -> Result<Started, ProgramError> {
    let Some(package) = Package::nearest(&place.folder)? else {
        return Err(ProgramError::NoPackage { saying: asked.saying.clone(), folder: place.folder.clone() });
    };
    let Some(text) = package.script(asked.name) else {
        // yarn and pnpm run an installed program of this name, too.
        if package::bins(&place.folder).iter().any(|bin| bin.join(asked.name).is_file()) {
            return Ok(Started::AsItStands(None));
        }
        return Err(ProgramError::NoScript {
            saying: asked.saying.clone(),
            name: asked.name.to_owned(),
            known: package.known(),
            file: package.folder.join("package.json"),
        });
    };
    let around = package.around(asked.name);
    let direct = plain::words(&text).map(plain::without_cross_env);
    let direct = direct.and_then(|words| Some((plain::of_script(&words)?, words)));
    let Some((assignments, words)) = direct.filter(|_| around.is_empty() && package.folder == place.folder) else {
        let advice = || format!("{} runs its {} with each start of a worker", asked.saying, around.join(" and "));
        let advice = node::lost_options(&asked.saying, &text).or_else(|| (!around.is_empty()).then(advice));
        return Ok(Started::AsItStands(advice));
    };
    let (assigned, words) = words.split_at(assignments);
    let (options, assigned): (Vec<_>, Vec<_>) = assigned.iter().partition(|word| word.starts_with("NODE_OPTIONS="));
    let inherited = package.environment(asked.name, &place.folder).into_iter().chain(package::path(place));
    let inherited = inherited.map(|(name, value)| format!("{name}={value}"));
    let command = std::iter::once("env".to_owned()).chain(inherited).chain(assigned.into_iter().cloned());
    Ok(Started::Directly(Recognised {
        dialect: Dialect::Node,
        command: command.chain(words.iter().cloned()).chain(asked.arguments.iter().cloned()).collect(),
        node_options: options.last().and_then(|word| Some(plain::assignment(word)?.1.to_owned())),
        is_wrapped: false,
        shown: format!("{text} ({})", asked.saying),
        seems_node: true,
        runs_on_node: !plain::is_deno(words),
        warnings: node::trouble(words).into_iter().collect(),
    }))
}

/// `env -i` would take away what a worker needs: every other variable that haft has is taken away instead, by name.
fn keep_variables(command: &mut Vec<String>) {
    let clears = |word: &String| matches!(word.as_str(), "-" | "-i" | "--ignore-environment");
    if command.first().is_some_and(|program| node::base_name(program) == "env") && command.get(1).is_some_and(clears) {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let unset = names
            .filter(|name| !name.is_empty() && name != "NODE_OPTIONS" && !name.starts_with("HAFT_"))
            .flat_map(|name| ["-u".to_owned(), name]);
        command.splice(1..2, unset.collect::<Vec<_>>());
    }
}

//! Node by its name, scripts by their first line, and tools that are Node themselves and start another one.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Place;

/// The kernel reads no more of a first line (`BINPRM_BUF_SIZE`, execve(2)).
const SHEBANG: u64 = 256;
/// More than any start script.
const SCRIPT: u64 = 64 * 1024;

/// The last part of a path.
pub fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// `node`, `nodejs`, `/usr/bin/node`, `node20`, `node-v20.1`.
pub fn is_node(program: &str) -> bool {
    let name = base_name(program);
    let Some(rest) = name.strip_prefix("nodejs").or_else(|| name.strip_prefix("node")) else { return false };
    let version = rest.strip_prefix('-').unwrap_or(rest);
    let version = version.strip_prefix('v').unwrap_or(version);
    rest.is_empty() || version.split('.').all(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

/// Shells whose `-c TEXT` and whose scripts are looked into.
pub fn is_shell(program: &str) -> bool {
    matches!(base_name(program), "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh")
}

/// What the first line of a file says.
pub enum Script {
    /// An interpreter and its argument, as words.
    Interpreted(Vec<String>),
    /// A shell's: its text.
    Shell(String),
}

/// The file that a program's name stands for, if it is a script.
pub fn script(program: &str, place: &Place) -> Option<Script> {
    let path = locate(program, place)?;
    let head = String::from_utf8_lossy(&read(&path, SHEBANG)?).into_owned();
    let line = head.strip_prefix("#!")?.lines().next()?.trim();
    let (interpreter, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let argument = argument.trim();
    if is_shell(interpreter) || (base_name(interpreter) == "env" && is_shell(argument)) {
        return Some(Script::Shell(text(&path)?));
    }
    let argument = (!argument.is_empty()).then(|| argument.to_owned());
    Some(Script::Interpreted(std::iter::once(interpreter.to_owned()).chain(argument).collect()))
}

/// The text of a file, unless it is long or none.
pub fn text(path: &Path) -> Option<String> {
    String::from_utf8(read(path, SCRIPT)?).ok()
}

fn read(path: &Path, at_most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok().filter(|file| file.metadata().is_ok_and(|meta| meta.is_file()))?;
    file.take(at_most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// As execvp(3) looks for a program.
fn locate(program: &str, place: &Place) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(place.folder.join(program));
    }
    place.path.iter().map(|folder| place.folder.join(folder).join(program)).find(|path| path.is_file())
}

/// Tools that are Node programs and start the server as another process of Node, and what to do instead.
const KEEPERS: &[(&str, &str)] = &[
    ("tsx", "node --import tsx FILE"),
    ("nodemon", "node FILE, and restart haft after a change"),
    ("node-dev", "node FILE"),
    ("ts-node-dev", "node -r ts-node/register FILE"),
    ("tsnd", "node -r ts-node/register FILE"),
    ("babel-node", "node -r @babel/register FILE"),
    ("pm2", "node FILE: haft starts, watches and restarts the workers itself"),
    ("pm2-runtime", "node FILE: haft starts, watches and restarts the workers itself"),
    ("forever", "node FILE: haft restarts workers itself"),
    ("concurrently", "the one command that is the server"),
    ("npm-run-all", "the one command that is the server"),
    ("run-s", "the one command that is the server"),
    ("run-p", "the one command that is the server"),
    ("dotenv", "node --env-file=.env FILE"),
    ("dotenvx", "node --env-file=.env FILE"),
    ("env-cmd", "node --env-file=.env FILE"),
    ("nest", "node dist/main.js"),
    ("lerna", "the one command that is the server"),
    ("turbo", "the one command that is the server"),
    ("nx", "the one command that is the server"),
];

/// What to give haft instead, if this tool is known to keep the channel to itself.
pub fn instead_of(program: &str) -> Option<&'static str> {
    let name = base_name(program);
    KEEPERS.iter().find(|(keeper, _)| *keeper == name).map(|(_, cure)| *cure)
}

/// Options of Node whose value is the next word (`node --help`), when it is not attached.
const VALUED: &[&str] = &[
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
    "--env-file-if-exists",
    "--title",
    "--input-type",
    "--inspect-port",
    "--debug-port",
    "--disable-warning",
    "--diagnostic-dir",
    "--icu-data-dir",
    "--openssl-config",
    "--dns-result-order",
    "--unhandled-rejections",
    "--max-http-header-size",
    "--watch-path",
    "--experimental-config-file",
];

/// Node's own options: the words between it and its script, by index.
pub fn own_options(command: &[String]) -> std::ops::Range<usize> {
    let mut end = 1;
    while let Some(option) = command.get(end).filter(|word| word.starts_with('-') && *word != "-") {
        if option == "--" {
            break;
        }
        end += if VALUED.contains(&option.as_str()) { 2 } else { 1 };
    }
    1..end.min(command.len())
}

/// What is wrong with this command line of Node for a worker.
pub fn trouble(command: &[String]) -> Option<&'static str> {
    command[own_options(command)].iter().find_map(|option| match option.split('=').next()? {
        "--watch" | "--watch-path" => Some("starts another Node, which gets no channel: leave --watch out"),
        "-e" | "--eval" | "-p" | "--print" | "-pe" => {
            Some("runs a text, and a cluster worker must be a file: write it into one")
        }
        "-i" | "--interactive" => Some("is no server"),
        "--test" => Some("starts another Node for each test file"),
        _ => None,
    })
}

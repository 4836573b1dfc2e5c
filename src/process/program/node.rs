//! Node by its name, scripts by their first line, and what is Node itself and starts another one.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::LaunchContext;

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

/// Shells.
pub fn is_shell(program: &str) -> bool {
    matches!(base_name(program), "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh")
}

/// The interpreter that the first line of a file names.
pub enum Script {
    /// An interpreter and its argument, as words.
    Interpreted(Vec<String>),
    /// A shell's: its text.
    Shell(String),
}

/// The file that a program's name stands for, if it is a script.
pub fn script(program: &str, place: &LaunchContext) -> Option<Script> {
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
pub fn locate(program: &str, place: &LaunchContext) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(place.folder.join(program));
    }
    place.path.iter().map(|folder| place.folder.join(folder).join(program)).find(|path| path.is_file())
}

/// Programs on Node that start the server as another process.
const WRAPPERS: &[&str] = &[
    "tsx",
    "nodemon",
    "node-dev",
    "ts-node-dev",
    "tsnd",
    "pm2",
    "pm2-runtime",
    "forever",
    "concurrently",
    "npm-run-all",
    "run-s",
    "run-p",
    "dotenvx",
    "env-cmd",
    "cross-env",
    "cross-env-shell",
    "nest",
    "lerna",
    "turbo",
    "nx",
    "babel-node",
];

/// What is itself Node and starts another one, by the name of its file: the server is in the other.
pub fn is_wrapper(program: &str) -> bool {
    let name = base_name(program);
    let name = [".js", ".cjs", ".mjs"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    is_manager(name.strip_suffix("-cli").unwrap_or(name))
        || WRAPPERS.contains(&name)
        || program.contains("/node_modules/tsx/")
        || program.contains("/node_modules/nodemon/")
}

/// Package managers.
pub fn is_manager(name: &str) -> bool {
    matches!(name, "npm" | "npx" | "yarn" | "yarnpkg" | "pnpm" | "pnpx" | "corepack")
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

/// Whether Node, with this option, runs something else than the file that follows, or runs it in another process.
pub fn runs_no_file(option: &str) -> bool {
    const OTHERS: [&str; 11] =
        ["--watch", "--watch-path", "-e", "--eval", "-p", "--print", "-pe", "-i", "--interactive", "--test", "--run"];
    option.split('=').next().is_some_and(|option| OTHERS.contains(&option))
}

/// What is wrong with a command for a worker, and the cure.
pub fn trouble(command: &[String]) -> Option<String> {
    const CLOSES: &str = "closes the channel between haft and its worker: run haft itself as that user, or use setpriv";
    const LEAVES: &str = "takes the worker out of its process group, where haft's signals reach it: leave it out";
    const BUN: &str = "listens by itself, without asking haft: its servers get no connections from haft and are not sticky. \
        Run the program on Node or Deno";
    const DENO: &str = "serve listens by itself, without asking haft, as Deno.serve() does: its servers get no connections from \
        haft. Let the program listen by node:http and start it by deno run";
    const SUPERVISES: &str =
        "starts and watches processes of its own, as haft does: give haft what it starts (haft -- node FILE)";
    let program = command.first()?;
    let trouble = match base_name(program) {
        "sudo" | "doas" => CLOSES,
        "setsid" | "systemd-run" => LEAVES,
        "bun" => BUN,
        "deno" if command.get(1).is_some_and(|verb| verb == "serve") => DENO,
        "pm2" | "pm2-runtime" | "forever" => SUPERVISES,
        _ => return command.iter().find_map(|word| lost_options(program, word)),
    };
    Some(format!("{program} {trouble}"))
}

/// What a text loses that sets NODE_OPTIONS, and the cure. `what`: the text's place.
pub fn lost_options(what: &str, text: &str) -> Option<String> {
    let is_lost = text.contains("NODE_OPTIONS=") && !text.contains("$NODE_OPTIONS") && !text.contains("${NODE_OPTIONS");
    is_lost.then(|| {
        format!(
            "{what}: NODE_OPTIONS is set anew in the command, and haft's part in them is lost, without which the worker does \
             not find its channel: write NODE_OPTIONS=\"$NODE_OPTIONS ...\""
        )
    })
}

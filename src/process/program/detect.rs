//! Whether a command leads to Node, Deno or Bun, through whatever starts it. It decides what is spoken with the workers, and no more:
//! the command is run as it stands. A wrong guess is mended by --dialect.

use super::node::{self, Script};
use super::package::{self, Package};
use super::{LaunchContext, plain};

/// Deeper than any sensible chain of scripts that call each other.
const MAX_DEPTH: u32 = 8;

/// Programs that become, or start, the command that follows their own arguments.
const RUNNERS: &[&str] = &[
    "env",
    "exec",
    "command",
    "nice",
    "ionice",
    "taskset",
    "chrt",
    "setpriv",
    "stdbuf",
    "nohup",
    "timeout",
    "time",
    "prlimit",
    "numactl",
    "gosu",
    "su-exec",
    "tini",
    "dumb-init",
    "catatonit",
    "sudo",
    "doas",
    "setsid",
    "chroot",
    "unshare",
    "nsenter",
    "runuser",
    "systemd-run",
    "cgexec",
    "faketime",
    "strace",
    "ltrace",
    "perf",
    "catchsegv",
    "xvfb-run",
    "dotenv",
    "if",
    "then",
    "else",
    "elif",
    "while",
    "until",
    "do",
    "{",
    "!",
];

/// What else a package manager is asked for than scripts and programs.
const HOUSEKEEPING: &[&str] = &[
    "add",
    "audit",
    "cache",
    "ci",
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
    "uninstall",
    "unlink",
    "up",
    "update",
    "upgrade",
    "version",
    "why",
];

/// What knows Node's channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// It takes haft's preload.
    Node,
    /// It opens the channel where it finds it as Node does.
    Deno,
    /// It listens by itself.
    Bun,
}

/// Where it leads to, as far as the files say that it would read.
pub fn leads_to(command: &[String], place: &LaunchContext) -> Option<Runtime> {
    command_leads(command, place, 0)
}

fn command_leads(command: &[String], place: &LaunchContext, depth: u32) -> Option<Runtime> {
    let (program, rest) = command.split_first().filter(|_| depth < MAX_DEPTH)?;
    let name = node::base_name(program);
    if node::is_node(program) || node::is_wrapper(program) && !node::is_manager(name) {
        return Some(Runtime::Node);
    }
    if plain::is_deno(command) {
        return Some(Runtime::Deno);
    }
    if plain::is_bun(command) {
        return Some(Runtime::Bun);
    }
    if node::is_manager(name) {
        return manager_leads(name, rest, place, depth + 1);
    }
    if node::is_shell(program) {
        return shell_leads(rest, place, depth + 1);
    }
    if RUNNERS.contains(&name) {
        // Its options, their values and other arguments name no program that there is.
        let is_other = |words: &[String]| plain::is_deno(words) || plain::is_bun(words);
        let is_program = |word: &String| {
            let looks_so = !word.starts_with('-') && plain::assignment(word).is_none();
            let split = word.strip_prefix("-S").is_some_and(|line| !line.is_empty()) || word.contains(' ');
            split || looks_so && (node::is_node(word) || is_known(word) || node::locate(word, place).is_some())
        };
        let at = (0..rest.len()).find(|at| is_program(&rest[*at]) || is_other(&rest[*at..]))?;
        let word = rest[at].trim_start_matches("-S").trim_start_matches("--split-string=");
        if word.contains(' ') {
            return text_leads(word, place, depth + 1);
        }
        return command_leads(&rest[at..], place, depth + 1);
    }
    match node::script(program, place) {
        Some(Script::Shell(text)) => text_leads(&text, place, depth + 1),
        Some(Script::Interpreted(line)) => command_leads(&line, place, depth + 1),
        None => {
            let after = rest.iter().position(|word| word == "--").map(|dashes| &rest[dashes + 1..]);
            let is_certain = || (0..rest.len()).any(|at| is_start(&rest[at..], place)).then_some(Runtime::Node);
            after.and_then(|after| command_leads(after, place, depth + 1)).or_else(is_certain)
        }
    }
}

/// Whether words among the arguments of an unknown program are a start of Node beyond doubt: what is to be run is there.
/// (`envdir ENV node server.js`, `aws-vault exec ROLE npm start`.)
fn is_start(words: &[String], place: &LaunchContext) -> bool {
    let is_there = |file: &String| {
        let endings = ["", ".js", ".mjs", ".cjs"];
        endings.iter().any(|ending| place.folder.join(format!("{file}{ending}")).is_file())
    };
    let has_script = |asked: plain::Asked<'_>| {
        Package::nearest(&place.folder).ok().flatten().is_some_and(|package| package.script(asked.name).is_some())
    };
    plain::is_node_with_file(words) && words.get(node::own_options(words).end).is_some_and(is_there)
        || plain::script_asked(words).is_some_and(has_script)
}

fn is_known(word: &str) -> bool {
    let name = node::base_name(word);
    node::is_wrapper(word) || node::is_manager(name) || node::is_shell(word) || RUNNERS.contains(&name)
}

/// `sh -c TEXT` or `sh FILE`.
fn shell_leads(arguments: &[String], place: &LaunchContext, depth: u32) -> Option<Runtime> {
    let is_text = arguments.iter().any(|word| word.starts_with('-') && !word.starts_with("--") && word.contains('c'));
    let words = || arguments.iter().filter(|word| !word.starts_with(['-', '+']));
    match words().next() {
        // What follows may be what the text starts: sh -c 'exec "$@"' sh node server.js.
        Some(text) if is_text => {
            let from = |at| command_leads(&words().skip(at).cloned().collect::<Vec<_>>(), place, depth);
            let passed = || passed_on(text).iter().find_map(|at| from(*at));
            text_leads(text, place, depth).or_else(passed)
        }
        Some(file) => text_leads(&node::text(&place.folder.join(file))?, place, depth),
        None => None,
    }
}

/// Where, from the text on, the words may begin that it starts: the next one is `$0`, and `$@` are those after it.
fn passed_on(text: &str) -> &'static [usize] {
    match text {
        _ if text.contains("$0") => &[2, 1],
        _ if ["$@", "$1", "$*"].iter().any(|words| text.contains(words)) => &[2],
        _ => &[],
    }
}

/// A text for a shell: whatever stands where a command may begin is looked at as one.
fn text_leads(text: &str, place: &LaunchContext, depth: u32) -> Option<Runtime> {
    let lines = text.lines().map(|line| line.trim_start()).filter(|line| !line.starts_with('#'));
    let commands = lines.flat_map(|line| line.split([';', '|', '&', '(', ')', '`']));
    let words = |command: &str| -> Vec<String> {
        let bare = command.split_whitespace().map(|word| word.trim_matches(['"', '\'', '\\']).to_owned());
        bare.skip_while(|word| plain::assignment(word).is_some() || word.starts_with(['<', '>'])).collect()
    };
    commands.map(words).find_map(|words| command_leads(&words, place, depth))
}

/// A package manager: what it would run. What cannot be found it may download; the usual case is Node.
fn manager_leads(name: &str, arguments: &[String], place: &LaunchContext, depth: u32) -> Option<Runtime> {
    if name == "corepack" {
        return command_leads(arguments, place, depth);
    }
    let mut words: Vec<String> = arguments.iter().filter(|word| !word.starts_with('-')).cloned().collect();
    let verb =
        ["run", "run-script", "exec", "x", "dlx"].iter().find(|verb| words.first().is_some_and(|word| word == *verb));
    words.drain(..usize::from(verb.is_some()));
    let first = words.first()?;
    let is_npx = matches!(name, "npx" | "pnpx");
    let script = || Package::nearest(&place.folder).ok().flatten().and_then(|package| package.script(first));
    let inside = LaunchContext {
        folder: place.folder.clone(),
        path: package::bins(&place.folder).into_iter().chain(place.path.iter().cloned()).collect(),
    };
    if let Some(text) = script().filter(|_| !is_npx) {
        return text_leads(&text, &inside, depth);
    }
    if node::locate(first, &inside).is_some() || first.contains(' ') {
        return text_leads(&words.join(" "), &inside, depth);
    }
    (is_npx || verb.is_some() || !HOUSEKEEPING.contains(&first.as_str())).then_some(Runtime::Node)
}

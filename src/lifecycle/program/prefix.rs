//! Programs that do something to a process and then become, or start, the command that follows them on their line.

use super::shell;

/// What stands before the command.
#[derive(Debug, Default, PartialEq)]
pub struct Prefix<'a> {
    /// How many words it has; the command follows.
    pub words: usize,
    /// The folder that the command will run in (`env -C`).
    pub folder: Option<&'a str>,
    /// The environment is emptied (`env -i`).
    pub clears: bool,
    /// Words that a single option holds (`env -S`); they stand before what follows.
    pub split: Option<Vec<String>>,
    /// What is wrong with it for a worker.
    pub trouble: Option<&'static str>,
}

/// A program that runs the command after its own arguments.
struct Runner {
    name: &'static str,
    /// Options whose value is the next word, when it is not attached.
    valued: &'static [&'static str],
    /// Arguments before the command.
    arguments: Arguments,
    trouble: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Arguments {
    None,
    /// As many.
    Some(usize),
    /// One, if it is a number.
    Number,
}

const fn runner(name: &'static str, valued: &'static [&'static str], arguments: Arguments) -> Runner {
    Runner { name, valued, arguments, trouble: None }
}

const fn troubled(name: &'static str, valued: &'static [&'static str], trouble: &'static str) -> Runner {
    Runner { name, valued, arguments: Arguments::None, trouble: Some(trouble) }
}

const CLOSES: &str = "closes the channel between haft and its worker: run haft itself as that user, or use setpriv";
const SUDO: &[&str] = &["-u", "-g", "-h", "-p", "-C", "-D", "-R", "-T", "-U", "--user", "--group"];
const SETPRIV: &[&str] = &[
    "--reuid",
    "--regid",
    "--ruid",
    "--rgid",
    "--euid",
    "--egid",
    "--groups",
    "--inh-caps",
    "--ambient-caps",
    "--bounding-set",
    "--securebits",
    "--pdeathsig",
    "--selinux-label",
    "--apparmor-profile",
];

/// From coreutils, util-linux, procps, numactl, sudo, gosu, su-exec, tini, dumb-init, catatonit; and the shell's own.
const RUNNERS: &[Runner] = &[
    runner("nice", &["-n", "--adjustment"], Arguments::None),
    runner("ionice", &["-c", "-n", "--class", "--classdata"], Arguments::None),
    runner("taskset", &[], Arguments::Some(1)),
    runner("chrt", &["-T", "-P", "-D"], Arguments::Number),
    runner("setpriv", SETPRIV, Arguments::None),
    runner("stdbuf", &["-i", "-o", "-e", "--input", "--output", "--error"], Arguments::None),
    runner("nohup", &[], Arguments::None),
    runner("timeout", &["-k", "-s", "--kill-after", "--signal"], Arguments::Some(1)),
    runner("time", &["-f", "-o", "--format", "--output"], Arguments::None),
    runner("prlimit", &[], Arguments::None),
    runner("numactl", &["-C", "-N", "-m", "-i", "-p", "--physcpubind", "--cpunodebind", "--membind"], Arguments::None),
    runner("gosu", &[], Arguments::Some(1)),
    runner("su-exec", &[], Arguments::Some(1)),
    runner("tini", &["-p", "-e"], Arguments::None),
    runner("dumb-init", &["-r", "--rewrite"], Arguments::None),
    runner("catatonit", &[], Arguments::None),
    runner("busybox", &[], Arguments::None),
    runner("exec", &["-a"], Arguments::None),
    runner("command", &[], Arguments::None),
    troubled("setsid", &[], "goes into the background and leaves haft's process group: leave it out"),
    troubled("sudo", SUDO, CLOSES),
    troubled("doas", &["-u", "-C"], CLOSES),
];

/// What stands before the command in these words, if anything.
pub fn prefix<'a>(command: &'a [String]) -> Option<Prefix<'a>> {
    let assignments = command.iter().take_while(|word| shell::assignment(word).is_some()).count();
    if assignments > 0 {
        return Some(Prefix { words: assignments, ..Prefix::default() });
    }
    let name = super::node::base_name(command.first()?);
    if name == "env" {
        return env(command);
    }
    let runner = RUNNERS.iter().find(|runner| runner.name == name)?;
    let mut words = 1 + options(&command[1..], |option| runner.valued.contains(&option));
    words += match runner.arguments {
        Arguments::None => 0,
        Arguments::Some(count) => count,
        Arguments::Number => usize::from(command.get(words)?.chars().all(|c| c.is_ascii_digit())),
    };
    Some(Prefix { words, trouble: runner.trouble, ..Prefix::default() })
}

/// How many of the words are options, their values, and the `--` that ends them.
fn options(words: &[String], valued: impl Fn(&str) -> bool) -> usize {
    let mut count = 0;
    while let Some(word) = words.get(count).filter(|word| word.starts_with('-')) {
        count += if valued(word) { 2 } else { 1 };
        if word == "--" {
            break;
        }
    }
    count
}

/// env(1) of coreutils.
fn env(command: &[String]) -> Option<Prefix<'_>> {
    let mut found = Prefix { words: 1, ..Prefix::default() };
    while let Some(word) = command.get(found.words).filter(|word| word.starts_with('-')) {
        let (option, attached) = option_of_env(word);
        let next = command.get(found.words + 1).map(String::as_str);
        let value = attached.or(next);
        found.words += 1;
        match option {
            "-i" | "-" | "--ignore-environment" => found.clears = true,
            "--" => break,
            "-u" | "--unset" | "-C" | "--chdir" | "-S" | "--split-string" => {
                found.words += usize::from(attached.is_none());
                match option {
                    "-C" | "--chdir" => found.folder = value,
                    "-S" | "--split-string" => {
                        // All that follows is the command of what was split.
                        found.split = Some(shell::split(value?)?);
                        return Some(found);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    found.words += command.get(found.words..)?.iter().take_while(|word| shell::assignment(word).is_some()).count();
    Some(found)
}

/// `--chdir=x` and `-Cx` in two parts.
fn option_of_env(word: &str) -> (&str, Option<&str>) {
    if let Some((option, value)) = word.split_once('=').filter(|_| word.starts_with("--")) {
        return (option, Some(value));
    }
    match word.get(..2) {
        Some(option @ ("-u" | "-C" | "-S")) if word.len() > 2 => (option, Some(&word[2..])),
        _ => (word, None),
    }
}

//! Each `haft ...` that the documents say to type is checked by haft, and run for real where its program is at hand.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;

use super::documents;
use crate::harness::Setup;

/// What a reader has where the commands are typed.
const SERVER: &str = "require('http').createServer((_, response) => response.end('served')).listen(3000);\n";
const PACKAGE: &str = r#"{ "scripts": { "start": "node server.js", "serve": "node server.js" } }"#;
/// So many commands run at a time.
const AT_ONCE: usize = 3;

/// A command: what runs haft, and what follows the word `haft`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Typed {
    runner: Vec<String>,
    words: Vec<String>,
}

/// The words of a line of the shell, in simple commands; a comment is left out.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let (mut word, mut quote): (Option<String>, _) = (None, None);
    for letter in line.chars() {
        match (letter, quote) {
            ('#', None) if word.is_none() => break,
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, Some(open)) if letter == open => quote = None,
            (' ' | '|' | ';' | '&' | '(' | ')', None) => {
                commands.last_mut().expect("a command").extend(word.take());
                if letter != ' ' {
                    commands.push(Vec::new());
                }
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    commands.last_mut().expect("a command").extend(word);
    commands
}

/// All that the documents say to type, with where.
fn all() -> BTreeMap<Typed, String> {
    let mut found = BTreeMap::new();
    for document in documents() {
        let mut lines: Vec<(usize, String)> = Vec::new();
        for (number, line) in document.lines(Some("sh")) {
            match lines.last_mut().filter(|(_, before)| before.ends_with('\\')) {
                Some((_, before)) => {
                    before.pop();
                    before.push_str(line.trim_start());
                }
                None => lines.push((number, line.to_owned())),
            }
        }
        let spans = document
            .code_spans()
            .into_iter()
            .filter(|(_, span)| span.starts_with("haft ") && !span.starts_with("haft NAME"));
        lines.extend(spans.map(|(number, span)| (number, span.replace("\\|", "|"))));
        for (number, line) in lines {
            for words in simple_commands(&line) {
                let Some(at) = words.iter().position(|word| word == "haft") else { continue };
                // An argument of something else (`systemctl reload haft`).
                let runs = ["chrt", "exec", "env", "sudo", "nohup", "setpriv", "taskset"];
                if words.first().is_some_and(|first| first != "haft" && !runs.contains(&first.as_str())) {
                    continue;
                }
                let typed = Typed { runner: words[..at].to_vec(), words: words[at + 1..].to_vec() };
                found.entry(typed).or_insert_with(|| document.at(number));
            }
        }
    }
    assert!(found.len() > 25, "only {} commands were found", found.len());
    found
}

/// Makes what the commands name, and yields the words with paths in this folder in place of those of the system.
fn furnish(folder: &Path, words: &[String]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["etc", "run", "public"] {
        fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a file");
    write("public/index.html", "<title>a page</title>");
    write("package.json", PACKAGE);
    write("server.js", SERVER);
    write("worker.js", SERVER);
    write("haft.yaml", "workers: 2\n");
    fs::copy(root.join("examples/worker.py"), folder.join("worker.py")).expect("worker.py");
    let replaced = words.iter().enumerate().map(|(at, word)| {
        if at > 0 && words[at - 1] == "--user" {
            return "daemon".to_owned();
        }
        let word = word.replace("/etc/haft/", "/etc/").replace("/etc/", &format!("{}/etc/", folder.display()));
        let word = word.replace("/run/", &format!("{}/run/", folder.display()));
        // `@FILE` is a secret; so is what stands in a file of its own below /etc.
        let file = word.strip_prefix('@').unwrap_or(&word);
        let is_secret = word.starts_with('@') || word.contains("/etc/");
        if is_secret && !file.ends_with(".yaml") {
            let path = folder.join(file);
            fs::write(&path, "0123456789abcdef0123456789abcdef\n").expect("a secret");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a mode");
        } else if is_secret {
            fs::write(folder.join(file), "workers: 2\n").expect("a configuration");
        }
        word
    });
    replaced.collect()
}

/// Whether what the workers run is on this machine, and their user. Programs of other packages have tests of their own.
fn is_at_hand(words: &[String]) -> bool {
    if words.iter().any(|word| word == "--user") {
        return false;
    }
    match words.iter().position(|word| word == "--").map(|at| &words[at + 1..]) {
        None => true,
        Some(command) => {
            ["node server.js", "node worker.js", "npm start", "python3 worker.py"].contains(&command.join(" ").as_str())
        }
    }
}

/// Whether haft ends by itself.
fn only_says(words: &[String]) -> bool {
    let own = words.iter().take_while(|word| *word != "--");
    own.clone().any(|word| ["--help", "-h", "--version", "-V", "--check"].contains(&word.as_str()))
}

#[test]
fn each_command_is_one_that_haft_takes() {
    let mut wrong = Vec::new();
    for (typed, place) in all() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut words = furnish(folder.path(), &typed.words);
        match words.first().filter(|first| !first.starts_with('-')) {
            Some(_) => words = vec![words[0].clone(), "--help".to_owned()],
            None if !only_says(&words) => words.insert(0, "--check".to_owned()),
            None => {}
        }
        let haft = Command::new(env!("CARGO_BIN_EXE_haft")).args(&words).current_dir(folder.path()).output();
        let output = haft.expect("haft");
        if !output.status.success() {
            wrong.push(format!("{place}: haft {words:?}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A network of its own, in which every port is free, and this host has the address of the documents. Without root that needs a user namespace.
fn network() -> Option<Vec<String>> {
    let network = [
        "unshare",
        "--map-root-user",
        "--net",
        "sh",
        "-c",
        "ip link set lo up && ip address add 10.0.0.1 dev lo && exec \"$@\"",
        "sh",
    ];
    let network: Vec<String> = network.map(str::to_owned).into();
    let works = Command::new(&network[0]).args(&network[1..]).arg("true").output().ok()?.status.success();
    works.then_some(network)
}

#[test]
fn each_command_whose_program_is_at_hand_serves() {
    let Some(network) = network() else {
        println!("skipped: the commands need a network of their own, which cannot be had here (unshare --net)");
        return;
    };
    let commands: Vec<(Typed, String)> = all()
        .into_iter()
        .filter(|(typed, _)| typed.words.first().is_none_or(|first| first.starts_with('-')))
        .filter(|(typed, _)| is_at_hand(&typed.words) && !only_says(&typed.words))
        .collect();
    assert!(commands.len() > 10, "only {} commands can run", commands.len());
    for some in commands.chunks(AT_ONCE) {
        thread::scope(|scope| {
            for (typed, place) in some {
                let network = &network;
                scope.spawn(move || serves(typed, place, network));
            }
        });
    }
}

fn serves(typed: &Typed, place: &str, network: &[String]) {
    println!("{place}: {:?} haft {:?}", typed.runner, typed.words);
    let setup = Setup::typed(|folder| furnish(folder, &typed.words));
    let runner: Vec<&str> = network.iter().chain(&typed.runner).map(String::as_str).collect();
    let mut haft = setup.under(&runner).start_unasked(1);
    haft.log().line_with("listening on ");
    haft.signal(Signal::SIGTERM);
    assert_eq!(haft.wait_for_exit().code(), Some(0), "{place}");
}

//! Where the control socket is when no flag names it: in which folder, under which name. A command that looks for a
//! running haft looks in the same places.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::addr::ListenAddr;
use crate::config::{Config, InstanceName, Program};

/// What follows a name.
const SUFFIX: &str = ".sock";
/// What the socket is called in a folder that is this haft's alone.
const ALONE: &str = "haft";
/// What runs a program, and is not what it is called after.
const RUNNERS: &[&str] = &[
    "node",
    "nodejs",
    "deno",
    "bun",
    "bunx",
    "npm",
    "npx",
    "yarn",
    "pnpm",
    "corepack",
    "tsx",
    "ts-node",
    "nodemon",
    "python",
    "python3",
    "ruby",
    "bundle",
    "sh",
    "bash",
    "env",
    "cross-env",
    "dotenv",
    "exec",
    "run",
    "start",
];

/// A folder where a control socket may be, and how it is called there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPlace {
    /// The folder.
    pub folder: PathBuf,
    /// The mode with which haft makes the folder. None: it is there, or it is not haft's to make.
    pub make: Option<u32>,
    /// Whether the folder is this haft's alone: then the socket is `haft.sock`, whatever the haft is called.
    pub fixed: bool,
}

/// What decides where control sockets are.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// `$RUNTIME_DIRECTORY`: what systemd has made for a service (systemd.exec(5)). It may hold several, parted by colons.
    pub runtime_directory: Option<OsString>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<OsString>,
    /// The user.
    pub uid: u32,
}

impl Surroundings {
    /// Those of this process.
    pub fn own() -> Self {
        Self {
            runtime_directory: env::var_os("RUNTIME_DIRECTORY"),
            xdg_runtime_dir: env::var_os("XDG_RUNTIME_DIR"),
            uid: geteuid().as_raw(),
        }
    }

    /// Where a master puts its socket, the best place first.
    pub fn places(&self) -> Vec<SocketPlace> {
        let service =
            self.runtime_directory.iter().flat_map(env::split_paths).filter(|path| path.is_absolute()).take(1);
        let service = service.map(|folder| SocketPlace { folder, make: None, fixed: true });
        let own = |folder: PathBuf, mode| SocketPlace { folder, make: Some(mode), fixed: false };
        let session = self.xdg_runtime_dir.iter().map(PathBuf::from).filter(|path| path.is_absolute());
        let session = session.map(|folder| own(folder.join("haft"), 0o700));
        let others = [own("/run/haft".into(), 0o755), own(format!("/tmp/haft-{}", self.uid).into(), 0o700)];
        service.chain(session).chain(others).collect()
    }

    /// The folders where a command looks for sockets; [`is_named_like_one`] selects the files to try.
    pub fn searched(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = self.places().into_iter().map(|place| place.folder).collect();
        let listed = |folder: &str| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        // Services: RuntimeDirectory=NAME, and RuntimeDirectory=haft/INSTANCE.
        folders.extend(listed("/run").chain(listed("/run/haft")).filter(|path| path.is_dir()));
        if self.uid == 0 {
            folders.extend(listed("/run/user").map(|folder| folder.join("haft")));
        }
        folders.dedup();
        folders
    }
}

impl SocketPlace {
    /// The paths that a socket may have here, the best first: the next ones are for a haft that has the name of
    /// another.
    pub fn sockets(&self, name: &InstanceName) -> impl Iterator<Item = PathBuf> {
        let stem = if self.fixed { ALONE } else { name.as_str() };
        file_names(stem).map(|name| self.folder.join(name))
    }
}

/// Whether a file is called as a control socket is in this folder: where other things may be, too, only one name
/// counts.
pub fn is_named_like_one(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_ours = folder == "haft" || folder.starts_with("haft-");
    name.ends_with(SUFFIX) && (is_ours || name.trim_end_matches(SUFFIX).starts_with(ALONE))
}

/// The names that the file of a control socket may have, the best first.
pub fn file_names(stem: &str) -> impl Iterator<Item = String> {
    let number = |number: u32| if number == 1 { String::new() } else { format!("-{number}") };
    (1..=9).map(move |at| format!("{stem}{}{SUFFIX}", number(at)))
}

/// What a haft is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Called {
    /// So, as long as it runs.
    Finally(InstanceName),
    /// After its program alone, until the first port is known that the program listens on.
    ForNow(InstanceName),
}

impl Called {
    /// `--name`, or the program and the first port of these addresses.
    pub fn new<'a>(config: &Config, mut bound: impl Iterator<Item = &'a ListenAddr>) -> Self {
        if let Some(name) = &config.name {
            return Self::Finally(name.clone());
        }
        let program = match &config.program {
            Program::BuiltIn(_) => ALONE,
            Program::Command(command) => program(&command.argv),
        };
        let program = Self::ForNow(InstanceName::of(program));
        bound.find_map(|addr| program.on(addr)).map_or(program, Self::Finally)
    }

    /// What it is called for good, now that it listens there. Nothing changes where it has such a name, or there is no
    /// port.
    pub fn on(&self, addr: &ListenAddr) -> Option<InstanceName> {
        match (self, addr.port()) {
            (Self::ForNow(name), Some(port)) => Some(InstanceName::of(&format!("{name}-{port}"))),
            _ => None,
        }
    }

    /// The name.
    pub fn name(&self) -> &InstanceName {
        match self {
            Self::Finally(name) | Self::ForNow(name) => name,
        }
    }
}

/// Whether a name is that of a program, with the port that it listens on.
pub fn is_on_a_port(name: &str, program: &str) -> bool {
    let port = name.strip_prefix(program).and_then(|rest| rest.strip_prefix('-'));
    port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a command runs in the end, as far as its words show.
fn program(command: &[String]) -> &str {
    let mut named = command.iter().filter(|word| !word.starts_with('-') && !word.contains('=')).map(|word| stem(word));
    let found = named.find(|stem| !stem.is_empty() && !RUNNERS.contains(stem));
    found.or_else(|| command.first().map(|word| stem(word))).unwrap_or(ALONE)
}

/// A path's last part, without the ending of a script.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((stem, ending)) if ["js", "mjs", "cjs", "ts", "mts", "cts", "py", "rb", "sh"].contains(&ending) => stem,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{self, ParseOutcome};

    fn surroundings(runtime: Option<&str>, xdg: Option<&str>, uid: u32) -> Surroundings {
        Surroundings { runtime_directory: runtime.map(OsString::from), xdg_runtime_dir: xdg.map(OsString::from), uid }
    }

    fn first(surroundings: &Surroundings) -> Vec<String> {
        let sockets = surroundings.places();
        sockets
            .iter()
            .map(|place| place.sockets(&InstanceName::of("api")).next().expect("one").display().to_string())
            .collect()
    }

    #[test]
    fn a_service_s_folder_comes_first_then_the_user_s_then_the_host_s() {
        assert_eq!(
            first(&surroundings(Some("/run/chat:/run/other"), Some("/run/user/7"), 7)),
            ["/run/chat/haft.sock", "/run/user/7/haft/api.sock", "/run/haft/api.sock", "/tmp/haft-7/api.sock"]
        );
        let relative = first(&surroundings(Some("relative"), Some("too"), 0));
        assert_eq!(relative, ["/run/haft/api.sock", "/tmp/haft-0/api.sock"]);
        let place = &surroundings(None, None, 7).places()[0];
        let names: Vec<_> = place.sockets(&InstanceName::of("api")).map(|path| path.display().to_string()).collect();
        assert_eq!((names[1].as_str(), names.len()), ("/run/haft/api-2.sock", 9));
    }

    #[test]
    fn a_command_looks_wherever_a_master_puts_its_socket() {
        for surroundings in [surroundings(Some("/run/chat"), Some("/run/user/7"), 7), surroundings(None, None, 0)] {
            let searched = surroundings.searched();
            for place in surroundings.places() {
                assert!(searched.contains(&place.folder), "{place:?}");
                assert!(place.sockets(&InstanceName::of("api")).all(|socket| is_named_like_one(&socket)), "{place:?}");
            }
        }
        for other in ["/run/docker.sock", "/run/dbus/system_bus_socket", "/run/haft/api.sock.old"] {
            assert!(!is_named_like_one(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn a_haft_is_called_after_its_program_and_port() {
        for (words, name) in [
            ("haft", "haft-3000"),
            ("haft -l 80 -l 81", "haft-80"),
            ("haft -l unix:/x", "haft"),
            ("haft -- node --inspect server.js x", "server"),
            ("haft -l 80 -- node ./dist/main.mjs", "main-80"),
            ("haft -- npm run chat", "chat"),
            ("haft -- npm start", "npm"),
            ("haft -- /usr/bin/python3 worker.py", "worker"),
            ("haft -- A=1 ./my app", "my"),
            ("haft --name x -l 80", "x"),
        ] {
            let ParseOutcome::Run(config) = flags::parse_from(words.split(' ')) else { panic!("{words}") };
            let bound: Vec<_> = config.listen.iter().flatten().map(|listen| listen.addr.clone()).collect();
            assert_eq!(Called::new(&config, bound.iter()).name().as_str(), name, "{words}");
        }
    }

    #[test]
    fn a_program_s_own_port_becomes_a_part_of_the_name_once() {
        let called = |words: &str| {
            let ParseOutcome::Run(config) = flags::parse_from(words.split(' ')) else { panic!("{words}") };
            let bound: Vec<_> = config.listen.iter().flatten().map(|listen| listen.addr.clone()).collect();
            let port = |called: &Called| called.on(&"127.0.0.1:4000".parse().expect("an address"));
            port(&Called::new(&config, bound.iter())).map(|name| name.to_string())
        };
        assert_eq!(called("haft -- node server.js").as_deref(), Some("server-4000"));
        for named in ["haft --name chat -- node server.js", "haft -l 80 -- node server.js", "haft"] {
            assert_eq!(called(named), None, "{named}");
        }
        let unix = "unix:/run/x".parse().expect("an address");
        assert_eq!(Called::ForNow(InstanceName::of("server")).on(&unix), None);
        for (name, is) in [("server-4000", true), ("server", false), ("server-x", false), ("server2-80", false)] {
            assert_eq!(is_on_a_port(name, "server"), is, "{name}");
        }
    }
}

//! What the environment sets: `HAFT_FLAG_NAME` for each flag, and what platforms set for any program.
//!
//! A value is read exactly like what is typed after the flag. What may be given several times is a list with commas.
//! `WEB_CONCURRENCY` and `PORT` are not haft's own: they replace a default, and haft's own flags, keys and variables
//! beat them.

use std::ffi::OsString;

use clap::{ArgAction, Command};

use crate::flags::error::FlagsError;
use crate::flags::file::YamlValue;
use crate::flags::file::key;

/// How the variables of flags begin. Workers do not get them (`sys`).
const PREFIX: &str = "HAFT_FLAG_";
/// The number of workers where nothing else sets it.
pub(super) const WEB_CONCURRENCY: &str = "WEB_CONCURRENCY";
/// The port of the listener that haft has where nothing else sets it.
pub(super) const PORT: &str = "PORT";

/// What the environment sets. An empty variable is as if it were not there.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// Keys and values.
    flags: Vec<(String, YamlValue)>,
    pub(super) web_concurrency: Option<String>,
    pub(super) port: Option<String>,
}

impl Environment {
    /// Finds what concerns haft.
    pub(super) fn read(
        command: &Command,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, FlagsError> {
        let mut provenance = Self::default();
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            let flag = name.strip_prefix(PREFIX);
            if value.is_empty() || (flag.is_none() && ![WEB_CONCURRENCY, PORT].contains(&name)) {
                continue;
            }
            let Ok(value) = value.into_string() else {
                return Err(FlagsError::Variable { name: name.to_owned(), why: "it is not UTF-8 text".to_owned() });
            };
            match (flag, name) {
                (Some(flag), _) => provenance.flags.push(entry(command, flag, value)),
                (None, WEB_CONCURRENCY) => provenance.web_concurrency = Some(value),
                (None, _) => provenance.port = Some(value),
            }
        }
        // The order of variables means nothing: messages name them in one order.
        provenance.flags.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(provenance)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &YamlValue)> {
        self.flags.iter().map(|(key, node)| (key.as_str(), node))
    }

    /// Its value for a key that has one.
    pub(super) fn one(&self, key: &str) -> Option<&str> {
        self.flags.iter().find_map(|(known, node)| match node {
            YamlValue::One(text) if known == key => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.flags.iter().any(|(known, _)| known == key)
    }
}

/// The variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('-', "_"))
}

fn entry(command: &Command, flag: &str, value: String) -> (String, YamlValue) {
    let key_said = flag.to_lowercase().replace('_', "-");
    let repeats = |arg: &clap::Arg| !arg.is_positional() && matches!(arg.get_action(), ArgAction::Append);
    let node = match command.get_arguments().find(|arg| key(arg) == key_said) {
        Some(arg) if repeats(arg) && value.contains(',') => {
            YamlValue::Many(value.split(',').map(|part| part.trim().to_owned()).collect())
        }
        _ => YamlValue::One(value),
    };
    (key_said, node)
}

#[cfg(test)]
mod tests {
    use crate::flags::testing::{Folder, config, config_in, refused_in, told_in};

    #[test]
    fn a_flag_beats_the_environment_and_that_beats_the_file() {
        let folder = Folder::new();
        let file = folder.yaml("workers: 2\nbacklog: 7\n");
        let workers = |env: &[(&str, &str)], args: &[&str]| config_in(env, args).workers;
        let env = [("HAFT_FLAG_WORKERS", "3")];
        assert_eq!(workers(&env, &["-c", &file]), 3);
        assert_eq!(workers(&env, &["-c", &file, "-w4"]), 4);
        assert_eq!(workers(&[("HAFT_FLAG_WORKERS", "")], &["-c", &file]), 2);
        let named = config_in(&[("HAFT_FLAG_CONFIG", &file), ("OTHER", "x"), ("HAFT_SLOT", "1")], &[]);
        assert_eq!((named.workers, named.backlog), (2, 7));
    }

    #[test]
    fn the_command_and_lists_can_come_from_there() {
        let env = [("HAFT_FLAG_COMMAND", "node server.js"), ("HAFT_FLAG_LISTEN", "8080, unix:/run/x")];
        assert_eq!(config_in(&env, &[]), config(&["-l8080", "-lunix:/run/x", "--", "node", "server.js"]));
        assert_eq!(config_in(&env[..1], &["--", "other"]), config(&["--", "other"]));
        let env = [("HAFT_FLAG_PREFIX_OUTPUT", "true")];
        assert!(config_in(&env, &[]).marks_output());
        assert!(!config_in(&env, &["--prefix-output=false"]).marks_output());
    }

    #[test]
    fn a_mistake_is_told_with_the_variable() {
        for (name, value, message) in [
            ("HAFT_FLAG_WORKERS", "0", "HAFT_FLAG_WORKERS: invalid value `0`: at least one worker is needed"),
            ("HAFT_FLAG_WORKER", "1", "HAFT_FLAG_WORKER: there is no such flag, did you mean HAFT_FLAG_WORKERS?"),
            ("HAFT_FLAG_ZZZ", "1", "HAFT_FLAG_ZZZ: there is no such flag (haft --help"),
            ("HAFT_FLAG_CHECK", "true", "HAFT_FLAG_CHECK: it can only be typed (--check)"),
            ("HAFT_FLAG_CONFIG", "/no/such", "--config /no/such: No such file"),
            ("HAFT_FLAG_ADMIN", "127.0.0.1:3000", "HAFT_FLAG_ADMIN 127.0.0.1:3000: it overlaps"),
            ("HAFT_FLAG_DIALECT", "node", "HAFT_FLAG_DIALECT belongs to a COMMAND"),
            ("WEB_CONCURRENCY", "many", "WEB_CONCURRENCY: invalid value `many`"),
            ("PORT", "http", "PORT: invalid value `http`: it is not a port"),
        ] {
            let provenance = refused_in(&[(name, value)], &[]);
            assert!(provenance.contains(message), "{name}={value}: {provenance}");
        }
    }

    #[test]
    fn what_platforms_set_takes_the_place_of_a_default() {
        let folder = Folder::new();
        let file = folder.yaml("workers: 2\nlisten: 9000\n");
        let env = [("WEB_CONCURRENCY", "5"), ("PORT", "8080")];
        let seen = |env: &[(&str, &str)], args: &[&str]| {
            let config = config_in(env, args);
            let listen: Vec<_> = config.listen_or_default().iter().map(ToString::to_string).collect();
            (config.workers, listen.join(" "), config.listen.is_some())
        };
        assert_eq!(seen(&env, &[]), (5, ":8080".to_owned(), true));
        assert_eq!(seen(&env, &["-c", &file]), (2, ":9000".to_owned(), true));
        assert_eq!(seen(&env, &["-w1", "-l9"]), (1, ":9".to_owned(), true));
        let own = [env[0], env[1], ("HAFT_FLAG_WORKERS", "6"), ("HAFT_FLAG_LISTEN", "7000")];
        assert_eq!(seen(&own, &[]), (6, ":7000".to_owned(), true));
        // A Node program asks for its port itself; any other program has that of the default listener.
        assert_eq!(seen(&env, &["--", "x"]), (5, ":8080".to_owned(), false));
        assert_eq!(seen(&env, &["--dialect=haft", "--", "x"]), (5, ":8080".to_owned(), true));
        assert_eq!(seen(&[("PORT", ""), env[0]], &[]).1, "127.0.0.1:3000");
    }

    #[test]
    fn a_check_shows_where_each_value_comes_from() {
        let folder = Folder::new();
        let file = folder.yaml("\nbacklog: 7\naffinity: none\ncors-origin: [https://a, https://b]\n");
        let env = [("WEB_CONCURRENCY", "5"), ("PORT", "8080"), ("HAFT_FLAG_MAX_IN_FLIGHT", "9")];
        let yaml = told_in(&env, &["--check", "-c", &file, "--affinity=ip"]);
        for line in [
            "workers: 5 # WEB_CONCURRENCY",
            "listen: # PORT",
            "max-in-flight: 9 # HAFT_FLAG_MAX_IN_FLIGHT",
            &format!("backlog: 7 # {file}:2"),
            &format!("cors-origin: # {file}:4"),
            "affinity: ip # --affinity",
            "hold-timeout: 5s # default",
        ] {
            assert!(yaml.lines().any(|shown| shown == line), "{line}:\n{yaml}");
        }
        // What it shows is a file that comes to the same.
        let shown = folder.yaml(&yaml);
        assert_eq!(config(&["-c", &shown]).backlog, 7);
    }
}

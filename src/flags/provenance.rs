//! Which flags were given, and where, so that a message can name the place.

use std::collections::BTreeSet;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use crate::flags::environment::{Environment, PORT, WEB_CONCURRENCY, variable};
use crate::flags::file::{ConfigFile, key};

/// What was given, by the keys of the flags.
#[derive(Debug)]
pub(super) struct Provenance {
    typed: BTreeSet<String>,
    environment: Environment,
    file: Option<ConfigFile>,
}

impl Provenance {
    pub(super) fn new(
        command: &Command,
        typed: &ArgMatches,
        environment: Environment,
        file: Option<ConfigFile>,
    ) -> Self {
        let given = |arg: &&Arg| typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        Self { typed: command.get_arguments().filter(given).map(key).collect(), environment, file }
    }

    pub(super) fn file(&self) -> Option<&ConfigFile> {
        self.file.as_ref()
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(super) fn is_typed(&self, key: &str) -> bool {
        self.typed.contains(key)
    }

    /// Whether the file's value of a key is beaten.
    pub(super) fn is_beaten_in_file(&self, key: &str) -> bool {
        self.is_typed(key) || self.environment.has(key)
    }

    pub(super) fn is_given(&self, key: &str) -> bool {
        self.is_beaten_in_file(key) || self.place(key).is_some()
    }

    /// What a message calls the flag: `--admin`, `HAFT_FLAG_ADMIN` when the environment sets it, or `haft.yaml:3:
    /// admin` when the file does.
    pub(super) fn name(&self, key: &str) -> String {
        match self.place(key) {
            _ if self.is_typed(key) => typed_name(key),
            _ if self.environment.has(key) => variable(key),
            Some(place) => format!("{place}: {key}"),
            None => typed_name(key),
        }
    }

    /// Where the value of a key comes from.
    pub(super) fn source(&self, key: &str) -> String {
        match self.place(key) {
            _ if self.is_typed(key) => typed_name(key),
            _ if self.environment.has(key) => variable(key),
            Some(place) => place,
            None => match key {
                "workers" if self.environment.web_concurrency.is_some() => WEB_CONCURRENCY,
                "listen" if self.environment.port.is_some() => PORT,
                _ => "default",
            }
            .to_owned(),
        }
    }

    fn place(&self, key: &str) -> Option<String> {
        self.file.as_ref().and_then(|file| Some(file.place(file.index_of(key)?)))
    }
}

fn typed_name(key: &str) -> String {
    if key == "command" { "COMMAND".to_owned() } else { format!("--{key}") }
}

//! Which flags were given, and where, so that a message can name the place.

use std::collections::BTreeSet;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use crate::flags::file::File;

/// What was given, by the keys of the flags.
#[derive(Debug)]
pub(super) struct Said {
    typed: BTreeSet<String>,
    file: Option<File>,
}

impl Said {
    pub(super) fn new(command: &Command, typed: &ArgMatches, file: Option<File>) -> Self {
        let given = |arg: &&Arg| typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        Self { typed: command.get_arguments().filter(given).map(key).collect(), file }
    }

    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    pub(super) fn is_typed(&self, key: &str) -> bool {
        self.typed.contains(key)
    }

    pub(super) fn is_given(&self, key: &str) -> bool {
        self.is_typed(key) || self.file.as_ref().is_some_and(|file| file.index_of(key).is_some())
    }

    /// What a message calls the flag: `--admin`, or `haft.yaml:3: admin` when it is the file that says it.
    pub(super) fn name(&self, key: &str) -> String {
        let place = self.file.as_ref().and_then(|file| Some(file.place(file.index_of(key)?)));
        match place {
            Some(place) if !self.is_typed(key) => format!("{place}: {key}"),
            _ if key == "command" => "COMMAND".to_owned(),
            _ => format!("--{key}"),
        }
    }
}

/// A flag's key in the file: its long name, or for the positional COMMAND its own.
pub(super) fn key(arg: &Arg) -> String {
    arg.get_long().unwrap_or(arg.get_id().as_str()).to_owned()
}

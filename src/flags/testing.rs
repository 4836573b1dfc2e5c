//! What the tests of all topics use.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use crate::config::Config;
use crate::flags::{ParseOutcome, parse_with};

/// The configuration that comes of this command line.
#[track_caller]
pub(super) fn config(args: &[&str]) -> Config {
    config_in(&[], args)
}

/// The text when this command line is refused, with exit code 2.
#[track_caller]
pub(super) fn refused(args: &[&str]) -> String {
    refused_in(&[], args)
}

/// The text, with exit code 0.
#[track_caller]
pub(super) fn told(args: &[&str]) -> String {
    told_in(&[], args)
}

/// What `--check` shows, without where it comes from.
pub(super) fn without_sources(yaml: &str) -> String {
    yaml.lines().map(|line| line.rsplit_once(" # ").map_or(line, |(line, _)| line).to_owned() + "\n").collect()
}

#[track_caller]
pub(super) fn config_in(environment: &[(&str, &str)], args: &[&str]) -> Config {
    match outcome(environment, args) {
        ParseOutcome::Run(config) => *config,
        ParseOutcome::Check(_, exit) | ParseOutcome::Exit(exit) => panic!("{args:?}: {exit}"),
    }
}

#[track_caller]
pub(super) fn refused_in(environment: &[(&str, &str)], args: &[&str]) -> String {
    match outcome(environment, args) {
        ParseOutcome::Run(config) => panic!("{args:?}: {config:?}"),
        ParseOutcome::Check(_, exit) | ParseOutcome::Exit(exit) => {
            assert_eq!(exit.code(), 2, "{exit}");
            exit.to_string()
        }
    }
}

#[track_caller]
pub(super) fn told_in(environment: &[(&str, &str)], args: &[&str]) -> String {
    match outcome(environment, args) {
        ParseOutcome::Check(_, exit) | ParseOutcome::Exit(exit) if exit.code() == 0 => exit.to_string(),
        other => panic!("{args:?}: {other:?}"),
    }
}

fn outcome(environment: &[(&str, &str)], args: &[&str]) -> ParseOutcome {
    parse_with(environment.iter().map(|(name, value)| (name.into(), value.into())), ["haft"].iter().chain(args), &[])
}

/// A folder for the YAML file; it and `other` in it pass for the client's and hold a token file.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("folder"));
        let other = folder.0.path().join("other");
        std::fs::create_dir(&other).expect("folder");
        for dir in [folder.0.path(), &other] {
            std::fs::write(dir.join("socket.io.js"), "").expect("file");
            std::fs::write(dir.join("token"), "secret\n").expect("file");
            std::fs::set_permissions(dir.join("token"), Permissions::from_mode(0o600)).expect("mode");
        }
        folder
    }

    pub(super) fn path(&self) -> &str {
        self.0.path().to_str().expect("UTF-8")
    }

    pub(super) fn yaml(&self, text: &str) -> String {
        let path = format!("{}/haft.yaml", self.path());
        std::fs::write(&path, text).expect("file");
        path
    }
}

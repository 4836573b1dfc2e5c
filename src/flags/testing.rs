//! What the tests of all topics use.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use crate::config::Config;
use crate::flags::{Outcome, parse_from};

/// The configuration that comes of this command line.
#[track_caller]
pub(super) fn config(args: &[&str]) -> Config {
    match parse_from(["haft"].iter().chain(args)) {
        Outcome::Run(config) => *config,
        Outcome::Exit(exit) => panic!("{args:?}: {exit}"),
    }
}

/// What is said when this command line is refused, with exit code 2.
#[track_caller]
pub(super) fn refused(args: &[&str]) -> String {
    match parse_from(["haft"].iter().chain(args)) {
        Outcome::Run(config) => panic!("{args:?}: {config:?}"),
        Outcome::Exit(exit) => {
            assert_eq!(exit.code(), 2, "{exit}");
            exit.to_string()
        }
    }
}

/// What is said, with exit code 0.
#[track_caller]
pub(super) fn told(args: &[&str]) -> String {
    match parse_from(["haft"].iter().chain(args)) {
        Outcome::Exit(exit) if exit.code() == 0 => exit.to_string(),
        other => panic!("{args:?}: {other:?}"),
    }
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

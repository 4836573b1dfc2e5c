//! package.json and its scripts: where it is found, what they are called, what npm adds to their environment.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::LaunchContext;

/// The part of a package.json that running a script needs.
#[derive(Debug)]
pub struct Package {
    /// Where it lies; scripts run there.
    pub folder: PathBuf,
    /// By name; sorted.
    pub scripts: BTreeMap<String, String>,
    name: Option<String>,
    version: Option<String>,
    config: Vec<(String, String)>,
}

/// Why a package.json is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// It cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is no JSON.
    #[error("{}: {source}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

impl Package {
    /// The nearest one, from `folder` up to the root, as npm looks for it.
    pub fn nearest(folder: &Path) -> Result<Option<Self>, PackageError> {
        for folder in folder.ancestors() {
            let file = folder.join("package.json");
            match std::fs::read(&file) {
                Ok(bytes) => return Self::parse(folder, &bytes).map(Some),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(source) => return Err(PackageError::Read { file, source }),
            }
        }
        Ok(None)
    }

    fn parse(folder: &Path, bytes: &[u8]) -> Result<Self, PackageError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let json: Value = serde_json::from_slice(bytes)
            .map_err(|source| PackageError::Json { file: folder.join("package.json"), source })?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let scripts = json["scripts"].as_object().into_iter().flatten();
        let mut config = Vec::new();
        flatten("npm_package_config", &json["config"], &mut config);
        Ok(Self {
            folder: folder.to_owned(),
            scripts: scripts.filter_map(|(name, script)| Some((name.clone(), text(script)?))).collect(),
            name: text(&json["name"]),
            version: text(&json["version"]),
            config,
        })
    }

    /// The text of a script. npm has one default: `start` is `node server.js` if there is such a file.
    pub fn script(&self, name: &str) -> Option<String> {
        let implied = || {
            let there = name == "start" && self.folder.join("server.js").is_file();
            there.then(|| "node server.js".to_owned())
        };
        self.scripts.get(name).cloned().or_else(implied)
    }

    /// The names of the scripts that npm would run before and after this one.
    pub fn around(&self, name: &str) -> Vec<String> {
        let around = ["pre", "post"].map(|when| format!("{when}{name}"));
        around.into_iter().filter(|name| self.scripts.contains_key(name)).collect()
    }

    /// The names of the scripts there are.
    pub fn known(&self) -> String {
        let names: Vec<&str> = self.scripts.keys().map(String::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// What npm puts into the environment of a script (npm-run-script(1), "Environment").
    pub fn environment(&self, script: &str, started_in: &Path) -> Vec<(String, String)> {
        let mut environment = vec![
            ("npm_lifecycle_event".to_owned(), script.to_owned()),
            ("npm_package_json".to_owned(), self.folder.join("package.json").display().to_string()),
            ("INIT_CWD".to_owned(), started_in.display().to_string()),
        ];
        let named = [("npm_package_name", &self.name), ("npm_package_version", &self.version)];
        environment.extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
        environment.extend(self.config.iter().cloned());
        environment
    }
}

/// `node_modules/.bin` in a folder and in all above it.
pub fn bins(folder: &Path) -> Vec<PathBuf> {
    folder.ancestors().map(|folder| folder.join("node_modules/.bin")).collect()
}

/// PATH with the installed programs of a folder before the others, if there are any.
pub fn path(place: &LaunchContext) -> Option<(String, String)> {
    let bins: Vec<PathBuf> = bins(&place.folder).into_iter().filter(|bin| bin.is_dir()).collect();
    let all = bins.iter().chain(&place.path).map(|folder| folder.to_string_lossy());
    (!bins.is_empty()).then(|| ("PATH".to_owned(), all.collect::<Vec<_>>().join(":")))
}

/// `{a: {b: 1}}` as `prefix_a_b = 1`.
fn flatten(prefix: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::String(text) => into.push((prefix.to_owned(), text.clone())),
        Value::Object(members) => {
            for (name, value) in members {
                let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
                flatten(&format!("{prefix}_{name}"), value, into);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => into.push((prefix.to_owned(), value.to_string())),
    }
}

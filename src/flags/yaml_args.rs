//! A key of the file or a variable of the environment, turned into what one would type for it.
//!
//! So both have the names, the values and the rules of the command line, and nothing can differ between them.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use crate::flags::environment::{WEB_CONCURRENCY, variable};
use crate::flags::error::FlagsError;
use crate::flags::file::YamlValue;
use crate::flags::file::key;
use crate::flags::provenance::Provenance;

/// The keys that make sense only when typed; `config` in the environment, too.
const ONLY_TYPED: [&str; 4] = ["config", "check", "help", "version"];

/// What is wrong with a key or its value.
#[derive(Debug)]
pub(super) enum Wrong {
    /// There is no such flag; the one that may be meant.
    Unknown(Option<String>),
    /// This, in words that follow its name.
    Value(String),
}

impl Wrong {
    /// In words that follow the place in the file.
    pub(super) fn in_file(self, name: &str) -> String {
        match self {
            Self::Unknown(Some(near)) => format!("{name}: there is no such key, did you mean {near}?"),
            Self::Unknown(None) => {
                format!("{name}: there is no such key (haft --help lists the flags, each is a key)")
            }
            Self::Value(why) => format!("{name}: {why}"),
        }
    }

    /// In words that follow the name of the variable.
    fn in_environment(self) -> String {
        match self {
            Self::Unknown(Some(near)) => format!("there is no such flag, did you mean {}?", variable(&near)),
            Self::Unknown(None) => "there is no such flag (haft --help lists them)".to_owned(),
            Self::Value(why) => why,
        }
    }
}

/// The arguments for what the environment sets, by key, except for what is typed already.
pub(super) fn of_environment(
    command: &Command,
    provenance: &Provenance,
) -> Result<Vec<(String, Vec<String>)>, FlagsError> {
    let mut all = Vec::new();
    let mut read = |name: String, key: &str, node: &YamlValue| -> Result<(), FlagsError> {
        let words =
            as_typed(command, key, node).map_err(|wrong| FlagsError::Variable { name, why: wrong.in_environment() })?;
        if !provenance.is_typed(key) {
            all.push((key.to_owned(), words));
        }
        Ok(())
    };
    for (key, node) in provenance.environment().entries().filter(|(key, _)| *key != "config") {
        read(variable(key), key, node)?;
    }
    if let Some(number) = provenance.environment().web_concurrency.as_ref().filter(|_| !provenance.is_given("workers"))
    {
        read(WEB_CONCURRENCY.to_owned(), "workers", &YamlValue::One(number.clone()))?;
    }
    Ok(all)
}

/// What one would type for a value; nothing if the value is empty.
pub(super) fn as_typed(command: &Command, name: &str, node: &YamlValue) -> Result<Vec<String>, Wrong> {
    let Some(arg) = command.get_arguments().find(|arg| key(arg) == name) else {
        return Err(Wrong::Unknown(near(command, name)));
    };
    if ONLY_TYPED.contains(&name) {
        return Err(Wrong::Value(format!("it can only be typed (--{name})")));
    }
    words(command, arg, name, node).map_err(Wrong::Value)
}

fn words(command: &Command, arg: &Arg, name: &str, node: &YamlValue) -> Result<Vec<String>, String> {
    let words = match node {
        YamlValue::Nothing => return Ok(Vec::new()),
        YamlValue::Odd => {
            let hint = json_hint(arg);
            return Err(format!("write one value, or a list of values where there may be several{hint}"));
        }
        YamlValue::Many(list) if list.is_empty() => {
            return Err("the list is empty: leave the key out for the default".to_owned());
        }
        _ if arg.is_positional() => program(node)?,
        YamlValue::Many(list) if takes_list(arg) => vec![format!("--{name}={}", list.join(","))],
        YamlValue::Many(_) if !matches!(arg.get_action(), ArgAction::Append) => {
            return Err(format!("it takes one value, not a list{}", json_hint(arg)));
        }
        YamlValue::Many(list) => list.iter().map(|value| format!("--{name}={value}")).collect(),
        YamlValue::One(value) => vec![format!("--{name}={value}")],
    };
    match command.clone().try_get_matches_from(std::iter::once("haft").chain(words.iter().map(String::as_str))) {
        Ok(_) => Ok(words),
        Err(error) => Err(why(&error)),
    }
}

/// Whether one value is a list with commas.
fn takes_list(arg: &Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.ends_with("[,...]")))
}

/// JSON outside of quotes is YAML too, and comes as a mapping or a list.
fn json_hint(arg: &Arg) -> &'static str {
    let takes_json = arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.ends_with("JSON")));
    if takes_json { " (put JSON in single quotes)" } else { "" }
}

/// `--`, then the words of the command.
fn program(node: &YamlValue) -> Result<Vec<String>, &'static str> {
    let mut words = vec!["--".to_owned()];
    match node {
        YamlValue::Many(list) => words.extend_from_slice(list),
        YamlValue::One(text) if text.contains(|c: char| "\"'\\$`|&;<>(){}*?#~!".contains(c)) => {
            return Err("no shell reads it: write a list, such as [node, \"my server.js\"]");
        }
        YamlValue::One(text) => words.extend(text.split_whitespace().map(str::to_owned)),
        YamlValue::Nothing | YamlValue::Odd => {}
    }
    if words.len() == 1 { Err("it names no program") } else { Ok(words) }
}

/// clap's error without the flag, which stands in front already.
fn why(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" or "),
        _ => String::new(),
    };
    let value = context(ContextKind::InvalidValue);
    match (error.kind(), std::error::Error::source(error)) {
        (ErrorKind::ValueValidation, Some(source)) => format!("invalid value `{value}`: {source}"),
        (ErrorKind::InvalidValue, _) if error.get(ContextKind::ValidValue).is_some() => {
            format!("invalid value `{value}`: write {}", context(ContextKind::ValidValue))
        }
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

/// clap knows what an unknown flag may have been meant to be.
fn near(command: &Command, name: &str) -> Option<String> {
    let error = command.clone().try_get_matches_from(["haft", &format!("--{name}")]).err()?;
    match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => Some(flag.trim_start_matches('-').to_owned()),
        _ => None,
    }
    .filter(|flag| !ONLY_TYPED.contains(&flag.as_str()))
}

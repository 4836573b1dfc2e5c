//! A key of the file, turned into what one would type for it.
//!
//! So the file has the keys, the values and the rules of the command line, and nothing can differ between them.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use crate::flags::file::Node;
use crate::flags::said::key;

/// The keys that make sense only when typed.
const ONLY_TYPED: [&str; 4] = ["config", "check", "help", "version"];

/// What one would type for a value of the file; nothing if the value is empty.
///
/// # Errors
///
/// What is wrong with the key or its value, in words that follow the place.
pub(super) fn as_typed(command: &Command, name: &str, node: &Node) -> Result<Vec<String>, String> {
    let Some(arg) = command.get_arguments().find(|arg| key(arg) == name) else {
        return Err(unknown(command, name));
    };
    if ONLY_TYPED.contains(&name) {
        return Err(format!("{name}: it can only be typed (--{name})"));
    }
    let words = match node {
        Node::Nothing => return Ok(Vec::new()),
        Node::Odd => {
            let hint = json_hint(arg);
            return Err(format!("{name}: write one value, or a list of values where there may be several{hint}"));
        }
        Node::Many(list) if list.is_empty() => {
            return Err(format!("{name}: the list is empty: leave the key out for the default"));
        }
        _ if arg.is_positional() => program(node).map_err(|why| format!("{name}: {why}"))?,
        Node::Many(list) if takes_list(arg) => vec![format!("--{name}={}", list.join(","))],
        Node::Many(_) if !matches!(arg.get_action(), ArgAction::Append) => {
            return Err(format!("{name}: it takes one value, not a list{}", json_hint(arg)));
        }
        Node::Many(list) => list.iter().map(|value| format!("--{name}={value}")).collect(),
        Node::One(value) => vec![format!("--{name}={value}")],
    };
    match command.clone().try_get_matches_from(std::iter::once("haft").chain(words.iter().map(String::as_str))) {
        Ok(_) => Ok(words),
        Err(error) => Err(format!("{name}: {}", why(&error))),
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
fn program(node: &Node) -> Result<Vec<String>, &'static str> {
    let mut words = vec!["--".to_owned()];
    match node {
        Node::Many(list) => words.extend_from_slice(list),
        Node::One(text) if text.contains(|c: char| "\"'\\$`|&;<>(){}*?#~!".contains(c)) => {
            return Err("no shell reads it: write a list, such as [node, \"my server.js\"]");
        }
        Node::One(text) => words.extend(text.split_whitespace().map(str::to_owned)),
        Node::Nothing | Node::Odd => {}
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
fn unknown(command: &Command, name: &str) -> String {
    let near = command.clone().try_get_matches_from(["haft", &format!("--{name}")]).err();
    match near.as_ref().and_then(|error| error.get(ContextKind::SuggestedArg)) {
        Some(ContextValue::String(flag)) if !ONLY_TYPED.contains(&flag.trim_start_matches('-')) => {
            format!("{name}: there is no such key, did you mean {}?", flag.trim_start_matches('-'))
        }
        _ => format!("{name}: there is no such key (haft --help lists the flags, each is a key)"),
    }
}

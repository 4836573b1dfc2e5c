//! `haft completions`.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command};
use clap_complete::Shell;

/// Print the completions for a shell
///
/// bash: haft completions bash > /usr/share/bash-completion/completions/haft
///
/// zsh: haft completions zsh > /usr/share/zsh/vendor-completions/_haft
///
/// fish: haft completions fish > /usr/share/fish/vendor_completions.d/haft.fish
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> ExitCode {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut with_words(super::all()), "haft", &mut text);
        super::print(&text)
    }
}

/// The same, with the words that each flag takes as what may follow it: their parsers keep them to themselves.
fn with_words(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let words = words(&arg);
        if words.is_empty() { arg } else { arg.value_parser(PossibleValuesParser::new(words)) }
    });
    command.mut_subcommands(with_words)
}

/// The words among what a flag takes, such as both of `wait|refuse`, and `off` of `ADDR|off`.
fn words(arg: &Arg) -> Vec<&'static str> {
    let names = arg.get_value_names().unwrap_or_default().iter().flat_map(|name| name.split('|'));
    let is_word = |name: &&str| {
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase())
    };
    // clap takes texts that are there for ever. This process prints and ends.
    names.filter(is_word).map(|word| &*word.to_owned().leak()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_flag_are_completed() {
        let command = with_words(super::super::all());
        let of = |id: &str| {
            let arg = command.get_arguments().find(|arg| arg.get_id() == id).expect(id);
            arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of("over_limit"), ["wait", "refuse"]);
        assert_eq!(of("dispatch"), ["handover", "kernel"]);
        assert_eq!(of("admin"), ["off"]);
        assert!(of("config").is_empty() && of("listen").is_empty());
    }
}

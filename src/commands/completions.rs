//! `haft completions`.

use std::process::ExitCode;

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
        clap_complete::generate(self.shell, &mut super::all(), "haft", &mut text);
        super::print(&text)
    }
}

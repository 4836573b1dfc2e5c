//! `haft man`.

use std::process::ExitCode;

/// The date of this version: a manual page has one.
const DATE: &str = "2026-11-30";

/// Print the manual page, haft(1), as roff
///
/// haft man > /usr/share/man/man1/haft.1; to read it at once: haft man | man -l -
#[derive(Debug, clap::Args)]
pub(super) struct Man {}

impl Man {
    pub(super) fn run(self) -> ExitCode {
        let mut page = Vec::new();
        clap_mangen::Man::new(super::all()).date(DATE).render(&mut page).ok();
        super::print(&page)
    }
}

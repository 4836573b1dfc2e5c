//! `haft why`: which slot a client goes to, and why. It computes what a master with these flags would do, or what the one
//! that runs does.

mod explain;
mod now;
mod screen;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::process::ExitCode;

use self::explain::{Explanation, Question};
use super::target::{RunningHaft, Target};
use super::view::Status;
use crate::config::Config;
use crate::flags::{self, ParseOutcome};
use crate::peek::MAX_PEEKED;

/// Show which slot a client goes to, and why
///
/// Of the haft that runs, with which of its slots take clients now (--name, before the address, selects the haft):
///
/// haft why 192.0.2.7
///
/// Or of one with the flags that follow, and then none needs to run:
///
/// haft why 192.0.2.7 -w 4
///
/// haft why --sid lgy5fjW0yVKcPbBnAAAC100AAIAAAAHaaeY3mVb -w 4 --tag-key @/etc/haft/tag-key
///
/// haft why --request FILE -c haft.yaml
///
/// Sessions and values of requests are tagged and hashed with --tag-key: without it what depends on it is not known here,
/// but for the sessions of a haft that runs, which is asked.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "haft why [ADDRESS] [--sid SID | --request FILE] [FLAGS]\n       haft why [--name NAME] [ADDRESS] [--sid SID | --request FILE]"
)]
pub(super) struct Why {
    #[command(flatten)]
    target: Target,

    /// The session id of a request
    #[arg(long, value_name = "SID", conflicts_with = "request")]
    sid: Option<String>,

    /// A file with the first bytes of a connection, - for standard input: the request, after a PROXY header if there is one
    #[arg(long, value_name = "FILE")]
    request: Option<OsString>,

    /// The client's address, and flags as haft is given them: -w 4, --affinity session, -c haft.yaml
    #[arg(value_name = "ADDRESS | FLAGS", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

impl Why {
    pub(super) fn run(self) -> ExitCode {
        match self.answer() {
            Ok(ParseOutcome::Check(_, exit) | ParseOutcome::Exit(exit)) => {
                exit.print().ok();
                ExitCode::from(exit.code())
            }
            Ok(ParseOutcome::Run(_)) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("haft why: {error}");
                ExitCode::from(2)
            }
        }
    }

    /// Prints the answer, or yields what haft's own flags have to say instead.
    fn answer(mut self) -> Result<ParseOutcome, String> {
        self.take_late_words()?;
        let client = self.take_address()?;
        let request = self.request.as_ref().map(read).transpose()?;
        if client.is_none() && self.sid.is_none() && request.is_none() {
            return Err("say which client: an address, --sid SID, or --request FILE".to_owned());
        }
        let running = match self.words.is_empty() {
            true => Some(self.running()?),
            false => None,
        };
        let config = match flags::parse_from(
            running.as_ref().map_or_else(|| self.flags(), |running| now::flags(&running.status)),
        ) {
            ParseOutcome::Run(config) => config,
            exit => return Ok(exit),
        };
        let is_signed = |sid: &str| running.as_ref().and_then(|running| now::has_signed(&running.client, sid));
        let question = Question { client, sid: self.sid, request };
        let text = answer(&config, question, &is_signed, running.as_ref().map(|running| &running.status))?;
        super::print(text.as_bytes());
        Ok(ParseOutcome::Run(config))
    }

    /// The haft that runs.
    fn running(&self) -> Result<RunningHaft, String> {
        self.target.find().map_err(|error| format!("{error}\nOr add flags, such as -w 4, for a haft that does not run"))
    }

    /// Everything behind the first flag of haft's is among the words, flags of our own too.
    fn take_late_words(&mut self) -> Result<(), String> {
        let mut rest = std::mem::take(&mut self.words).into_iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                self.words.push(word);
                break;
            }
            let text = word.to_str().unwrap_or_default();
            let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.into())));
            let mut value =
                || value.clone().or_else(|| rest.next()).ok_or_else(|| format!("{name}: its value is missing"));
            match name {
                "--sid" => self.sid = Some(value()?.to_string_lossy().into_owned()),
                "--request" => self.request = Some(value()?),
                _ => self.words.push(word),
            }
        }
        self.words.extend(rest);
        if self.sid.is_some() && self.request.is_some() {
            Err("give --sid or --request, not both".to_owned())
        } else {
            Ok(())
        }
    }

    fn take_address(&mut self) -> Result<Option<IpAddr>, String> {
        let Some(first) = self.words.first().map(|word| word.to_string_lossy().into_owned()) else { return Ok(None) };
        if first.starts_with('-') {
            return Ok(None);
        }
        self.words.remove(0);
        let bare = first.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&first);
        let address =
            bare.parse().map_err(|_| format!("{first:?} is no address: write one such as 192.0.2.7 or 2001:db8::7"))?;
        Ok(Some(address))
    }

    /// What haft would be started with. A question about a session implies sessions that stick.
    fn flags(&self) -> Vec<OsString> {
        let has_any = |names: [&str; 3]| {
            let ours = self.words.iter().take_while(|word| *word != "--").filter_map(|word| word.to_str());
            ours.into_iter().any(|word| names.iter().any(|name| word.split('=').next() == Some(name)))
        };
        let mut flags = vec![OsString::from("haft")];
        if self.sid.is_some() && !has_any(["--affinity", "-c", "--config"]) {
            flags.push("--affinity=session".into());
        }
        flags.extend(self.words.iter().cloned());
        flags
    }
}

fn answer(
    config: &Config,
    question: Question,
    is_signed: &dyn Fn(&str) -> Option<bool>,
    running: Option<&Status>,
) -> Result<String, String> {
    let explanation = Explanation::new(config, question, is_signed)?;
    let now = running.map(|status| now::rows(status, &explanation.by)).unwrap_or_default();
    Ok(format!("{explanation}{now}"))
}

/// The first bytes of a file: as many as haft would look at.
fn read(name: &OsString) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let most = MAX_PEEKED as u64;
    let read = match name.to_str() {
        Some("-") => io::stdin().take(most).read_to_end(&mut bytes),
        _ => File::open(name).and_then(|file| file.take(most).read_to_end(&mut bytes)),
    };
    read.map(|_| bytes).map_err(|error| format!("--request {}: {error}", name.to_string_lossy()))
}

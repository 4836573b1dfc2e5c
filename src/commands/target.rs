//! Which haft a command is about: the only one that runs, or the one that is named.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::client::{Client, ClientError};
use super::table::{TextTable, age};
pub use super::target_error::TargetError;
use super::view::Status;
use crate::addr::ListenAddr;
use crate::admin::socket::{Surroundings, is_named_like_one, is_on_a_port};
use crate::config::Admin;
use crate::log::escaped;

/// More sockets than any host has: it bounds a mistake.
const MAX_SOCKETS: usize = 256;

/// Which haft is meant.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Which haft, by its name; not needed where only one runs (`haft status` lists them)
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,

    /// The address of its admin listener, as given to its own --admin [default: looked for]
    #[arg(short, long, value_name = "ADDR")]
    admin: Option<Admin>,

    /// The file with the token that opens control on TCP [default: none]
    #[arg(long, value_name = "PATH")]
    admin_token_file: Option<PathBuf>,
}

/// A running haft.
#[derive(Debug)]
pub struct RunningHaft {
    /// How to ask it.
    pub client: Client,
    /// Its status when it was found.
    pub status: Status,
}

impl Target {
    /// Finds the haft that is meant.
    ///
    /// # Errors
    ///
    /// If there is none, or it is not known which.
    pub fn find(&self) -> Result<RunningHaft, TargetError> {
        if let Some(admin) = &self.admin {
            let addr = admin.addr().ok_or(TargetError::NoAddress)?;
            return ask(self.client(addr.clone())?);
        }
        let (mut found, mut foreign) = self.look()?;
        if found.is_empty() {
            // One may have got another name in between.
            (found, foreign) = self.look()?;
        }
        // A socket that can be reached in two ways is one.
        found.sort_by_key(|it: &RunningHaft| it.status.pid);
        found.dedup_by_key(|it| it.status.pid);
        choose(found, self.name.as_deref(), foreign)
    }

    /// Finds the haft that runs under this name now, in place of one that has ended.
    ///
    /// # Errors
    ///
    /// As [`Target::find`].
    pub fn find_successor(&self, name: &str) -> Result<RunningHaft, TargetError> {
        if self.admin.is_some() {
            return self.find();
        }
        let (found, foreign) = self.look()?;
        choose(found, Some(name), foreign)
    }

    /// Those that answer, and the socket of one that is another user's.
    fn look(&self) -> Result<(Vec<RunningHaft>, Option<PathBuf>), TargetError> {
        let (mut found, mut foreign) = (Vec::new(), None);
        for path in sockets() {
            match self.client(ListenAddr::Unix(path.clone())).map(ask)? {
                Ok(it) => found.push(it),
                Err(TargetError::Client(ClientError::NotPermitted(_))) => foreign = Some(path),
                // What is left of one that was killed, or another program's.
                Err(_) => {}
            }
        }
        Ok((found, foreign))
    }

    /// A client for this address, with the credentials of this command line.
    fn client(&self, addr: ListenAddr) -> Result<Client, TargetError> {
        Client::new(addr, self.admin_token_file.clone())
            .map_err(|error| TargetError::Other(format!("the event loop cannot be made: {error}")))
    }
}

fn choose(found: Vec<RunningHaft>, name: Option<&str>, foreign: Option<PathBuf>) -> Result<RunningHaft, TargetError> {
    let list = || list(&found);
    let is_exactly =
        |it: &RunningHaft| name.is_none_or(|name| it.status.name == name || is_called(it.client.addr(), name));
    let is_any = found.iter().any(is_exactly);
    // Without its port, where no other is called so.
    let is_nearly = |it: &RunningHaft| name.is_some_and(|name| is_on_a_port(&it.status.name, name));
    let meant = |it: &RunningHaft| if is_any { is_exactly(it) } else { is_nearly(it) };
    match (found.iter().filter(|it| meant(it)).count(), name) {
        (1, _) => found.into_iter().find(meant).ok_or(TargetError::None),
        (0, Some(name)) if !found.is_empty() => Err(TargetError::Unknown { name: name.to_owned(), list: list() }),
        (0, _) => Err(foreign.map_or(TargetError::None, TargetError::Foreign)),
        _ => Err(TargetError::Several(list())),
    }
}

/// Whether its socket has this name: of two hafts with one name, the second one's has a number.
fn is_called(addr: &ListenAddr, name: &str) -> bool {
    matches!(addr, ListenAddr::Unix(path) if path.file_stem().is_some_and(|stem| stem == name))
}

fn list(found: &[RunningHaft]) -> String {
    let mut table = TextTable::new(&["NAME", "PID", "UP", "SLOTS", "LISTENING ON", "CONTROL SOCKET"]);
    for RunningHaft { client, status } in found {
        table.row([
            // What `--name` takes.
            match client.addr() {
                ListenAddr::Unix(path) if found.iter().filter(|it| it.status.name == status.name).count() > 1 => {
                    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
                }
                _ => escaped(&status.name),
            },
            status.pid.to_string(),
            age(status.uptime_seconds),
            status.slots.len().to_string(),
            escaped(&status.listen.join(" ")),
            escaped(&client.addr().to_string()),
        ]);
    }
    table.to_string()
}

fn ask(client: Client) -> Result<RunningHaft, TargetError> {
    let status = Status::of(&client)?;
    Ok(RunningHaft { client, status })
}

/// The files that may be control sockets.
fn sockets() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in Surroundings::own().searched() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // It may still be that a socket in it can be opened.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                found.push(folder.join("haft.sock"));
                continue;
            }
            Err(_) => continue,
        };
        found.extend(entries.flatten().map(|entry| entry.path()).filter(|path| is_named_like_one(path)));
    }
    found.sort();
    found.dedup();
    found.truncate(MAX_SOCKETS);
    found
}

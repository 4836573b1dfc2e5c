//! Opening what a program wants to listen on: with the rights of its worker, which may be another user's than haft's.

use std::io;
use std::rc::Rc;

use super::ClusterPrimary;
use crate::addr::ListenAddr;
use crate::ids::WorkerId;
use crate::listen::kernel::Group;
use crate::node::wire::{ListenRefusal, Query, ServerId, Spec};
use crate::sys::listen::{Access, ListenError, Listener};
use crate::sys::rights::{Rights, Sender};

/// Ports below are for privileged users (ip(7)).
const FIRST_FREE_PORT: u16 = 1024;
/// So much of an address is shown.
const MAX_SHOWN: usize = 100;
/// Why a worker does not get one.
pub(super) const RESERVED_PORT: &str = "it runs as another user than haft, and ports below 1024 are then haft's to give: name the port \
    in --listen, or use one from 1024 on";

/// What was opened for a server, with the listener's number.
#[derive(Debug)]
pub enum Opened {
    /// A listener of which connections are handed over.
    Accepting(u32, Listener),
    /// Listeners for each worker to accept from.
    Group(u32, Rc<Group>),
    /// Connections of this group are handed over from now on, those of its keeper.
    TakenBack(u32, Listener, Rc<Group>),
}

impl Opened {
    /// Where clients connect.
    pub fn addr(&self) -> &ListenAddr {
        match self {
            Self::Accepting(_, listener) | Self::TakenBack(_, listener, _) => listener.addr(),
            Self::Group(_, group) => group.addr(),
        }
    }
}

impl ClusterPrimary {
    /// `by_master`: connections are handed over, though workers accept those of other servers themselves.
    pub(super) fn open(
        &self,
        addr: &ListenAddr,
        backlog: Option<u32>,
        access: Access,
        sender: Option<Sender>,
        by_master: bool,
    ) -> Result<Opened, ListenError> {
        let backlog = backlog.filter(|it| *it > 0).unwrap_or(self.plan.backlog);
        if matches!(addr, ListenAddr::Unix(_)) {
            // The kernel cannot choose a worker on a Unix socket: those connections are handed over.
            let refused = |source| ListenError::AnotherUser { addr: addr.clone(), source };
            let sender = sender.ok_or_else(|| refused(io::ErrorKind::NotFound.into()))?;
            let rights = Rights::of(&sender);
            // In a chroot, its path would be another one.
            if !rights.is_own() && !sender.shares_our_paths().map_err(refused)? {
                return Err(refused(io::Error::other("it has another root folder, or other mounts")));
            }
            return Listener::bind_as(addr, backlog, access, &rights)
                .map(|listener| Opened::Accepting(self.next, listener));
        }
        match self.opener.as_ref().filter(|_| !by_master) {
            None => Listener::bind(addr, backlog, access).map(|listener| Opened::Accepting(self.next, listener)),
            Some(opener) => opener.open(addr, backlog).map(|group| Opened::Group(self.next, group)),
        }
    }

    /// Programs remove the file at their Unix path before they listen there, since they would find a stale one after a
    /// crash. The next worker removes the file of the listener that haft has: then there is another one from now on.
    pub(super) fn reopen_removed_path(&mut self, server: ServerId, sender: Option<Sender>) {
        let Some(Spec::Stream { addr, backlog, readable_all, writable_all }) = self.servers.spec(server).cloned()
        else {
            return;
        };
        let ListenAddr::Unix(path) = &addr else { return };
        let is_removed =
            |error: &io::Error| error.kind() == io::ErrorKind::NotFound && !path.to_string_lossy().starts_with('@');
        if !std::fs::symlink_metadata(path).as_ref().is_err_and(is_removed) {
            return;
        }
        match self.open(&addr, backlog, Access::for_all(readable_all, writable_all), sender, true) {
            Ok(opened) => {
                let before = self.server_of.extract_if(.., |_, of| *of == server).map(|(number, _)| number);
                self.closing.extend(before);
                self.serve(server, opened);
            }
            Err(error) => tracing::error!("the program has removed {addr}, and {error}"),
        }
    }

    /// Why a worker was refused the last that it asked for, for people.
    pub fn why_refused(&self, worker: WorkerId, query: &Query<'_>, refusal: &ListenRefusal) -> String {
        if let Some(error) = self.listen_failures.get(&worker) {
            return error.to_string();
        }
        let port = query.port.filter(|port| *port >= 0).map(|port| format!("port {port}"));
        let address = query.address.as_ref().map(|address| address.chars().take(MAX_SHOWN).collect::<String>());
        let what: Vec<String> = address.into_iter().chain(port).collect();
        format!("{}: {} ({})", what.join(", "), refusal.why, io::Error::from_raw_os_error(refusal.errno))
    }

    /// Whether haft may open this port for a worker: a privileged port only if the worker itself may, or if haft is
    /// configured to listen there.
    pub(super) fn may_have(&self, port: Option<u16>, sender: Option<Sender>) -> bool {
        match port {
            Some(port @ 1..FIRST_FREE_PORT) => {
                self.own_ports.contains(&port) || sender.is_some_and(|sender| Rights::of(&sender).is_own())
            }
            _ => true,
        }
    }
}

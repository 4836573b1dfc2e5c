//! Which listener serves which server of a program: logged once, settled after a moment, and closed when no worker asks
//! for its port any more.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::opening::RESERVED_PORT;
use super::{ClusterPrimary, Opened, sockname};
use crate::ids::WorkerId;
use crate::node::wire::{ListenRefusal, Noticed, Query, ServerId, Spec};
use crate::sys::listen::Access;
use crate::sys::rights::Sender;

/// A listener of `--listen` serves the first server of a program only when it has asked for no other one for so long:
/// it may open its metrics first, and the port that is meant afterwards.
const SETTLING: Duration = Duration::from_millis(500);

impl ClusterPrimary {
    /// From now on this serves the server.
    pub(super) fn serve(&mut self, server: ServerId, opened: Opened) {
        if let Opened::Group(_, group) = &opened {
            self.groups.insert(server, Rc::clone(group));
        }
        self.fresh.push(opened);
        self.server_of.insert(self.next, server);
        self.next += 1;
    }

    /// Where workers accept from listeners of `--listen` that are for another server: its connections are handed over.
    pub(super) fn take_back_listeners(&mut self) {
        if !self.servers.is_by_master() {
            return;
        }
        let Some(group) = self.groups.remove(&ServerId::OWN) else { return };
        match group.for_master() {
            Ok(listener) => {
                tracing::warn!(
                    "the program asked for the port of {addr} only after workers had begun to accept there for the server                      that it opened first: the connections of both are handed over, since a listener cannot be taken back                      from a worker. To have the kernel assign them, name the server: --listen {addr}={port}",
                    addr = group.addr(),
                    port = group.addr().port().unwrap_or_default(),
                );
                self.troubles.note(Noticed::LateServer);
                self.serve(ServerId::OWN, Opened::TakenBack(self.next, listener, group));
            }
            Err(error) => tracing::error!(
                %error,
                "connections of {} go to the server that the program opened first: raise the limit on descriptors, or                  name the server that is meant (--listen ADDR=PORT), and restart",
                group.addr()
            ),
        }
    }

    /// A server that `--listen` served gets a listener of its own, since another one has come that fits better. Its
    /// program was answered long ago that it listens.
    pub(super) fn open_for_displaced(&mut self, server: ServerId, spec: &Spec, sender: Option<Sender>) {
        let Spec::Stream { addr, backlog, readable_all, writable_all } = spec else { return };
        if !self.may_have(spec.port(), sender) {
            self.refused += 1;
            tracing::error!("the program's server on {addr} cannot be served there: {RESERVED_PORT}");
            self.forget_displaced(server);
            return;
        }
        let by_master = self.servers.is_by_master();
        match self.open(addr, *backlog, Access::for_all(*readable_all, *writable_all), sender, by_master) {
            Ok(opened) => {
                self.servers.set_address(server, sockname(opened.addr()));
                self.serve(server, opened);
            }
            Err(error) => {
                tracing::error!(
                    "the program's server on {addr} was served from --listen until another one came that asks for that \
                     port, and cannot be served elsewhere: {error}. Name the server that is meant: --listen ADDR=PORT"
                );
                self.forget_displaced(server);
            }
        }
    }

    /// Its workers, which accept by themselves, were not answered yet, and get an error.
    fn forget_displaced(&mut self, server: ServerId) {
        if self.is_over_kernel() && !self.servers.is_by_master() {
            self.servers.forget(server);
        }
    }

    /// What the answer is for that goes to a worker for a server which it calls so; nothing while that may change.
    pub fn settled(&self, worker: WorkerId, key: &str) -> Option<Result<ServerId, ListenRefusal>> {
        let named = self.servers.named(worker, key);
        let waits = named.as_ref().is_ok_and(|server| self.servers.is_unsettled(*server));
        (!waits).then_some(named)
    }

    /// What the worker calls the server, if the answer to it has to wait.
    pub fn unsettled_key(&self, server: ServerId) -> Option<&str> {
        self.servers.key(server).filter(|_| self.servers.is_unsettled(server))
    }

    /// A worker has a server that was there. Logs once which listener serves it, if that is one of `--listen`.
    pub(super) fn joined(&mut self, server: ServerId, query: &Query<'_>) {
        let server = self.servers.listener_of(server);
        if server == ServerId::OWN && self.servers.is_provisional() {
            if !self.settled {
                self.provisional_since.get_or_insert_with(Instant::now);
            }
            return;
        }
        if self.servers.is_own(server) {
            self.provisional_since.take_if(|_| server == ServerId::OWN);
            self.log_server(server, query.port.unwrap_or_default());
        }
    }

    fn log_server(&mut self, server: ServerId, port: i64) {
        if !self.logged.insert(server) {
            return;
        }
        let own = self.server_of.iter().filter(|(_, of)| **of == server);
        let own = own.filter_map(|(number, _)| self.own.get(*number as usize));
        let own = own.map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self.is_by_message() {
            true => tracing::info!(
                "the program takes the connections of {own} by message; the server that it listens with gets none"
            ),
            false => tracing::info!("the program's server on port {port} gets the connections of {own}"),
        }
    }

    /// These workers serve now. If they have no server in common, a client of any port reaches some of them only; it is
    /// logged once, when it stays so.
    pub fn compare(&mut self, serving: &[WorkerId], now: Instant) {
        let mut all = serving.iter().map(|worker| self.servers.of_worker(*worker).collect::<BTreeSet<_>>());
        let some = all.by_ref().filter(|servers| !servers.is_empty());
        let mut count = 0;
        let common = some.inspect(|_| count += 1).reduce(|one, other| &one & &other);
        let apart = count > 1 && !self.is_by_message() && common.is_some_and(|common| common.is_empty());
        self.apart_since = (apart && !self.apart_told).then(|| self.apart_since.unwrap_or(now));
    }

    fn warn_apart(&mut self) {
        (self.apart_since, self.apart_told) = (None, true);
        self.troubles.note(Noticed::PortsApart);
        let servers: BTreeSet<_> = self.server_of.values().filter_map(|server| self.servers.key(*server)).collect();
        let servers = servers.into_iter().take(8).collect::<Vec<_>>().join(", ");
        tracing::warn!(
            "the workers listen on different ports ({servers}), so each port is served by some of them only. If the \
             program looks for a free port, let it ask for a fixed one; if each worker is to have a port of its own, \
             this is as you want it"
        );
    }

    /// Does what time changes: settles which server `--listen` serves, and closes ports that no worker asks for any
    /// more (for `patience`) nor is expected to: `is_expected` gets a listener. Returns whether anything changed.
    pub fn tick(&mut self, now: Instant, patience: Duration, is_expected: impl Fn(&Self, u32) -> bool) {
        if self.apart_since.is_some_and(|since| now.saturating_duration_since(since) >= patience) {
            self.warn_apart();
        }
        if self.provisional_since.is_some_and(|since| now.saturating_duration_since(since) >= SETTLING) {
            self.provisional_since = None;
            self.servers.settle();
            (self.settled, self.changed) = (true, true);
            self.log_server(ServerId::OWN, self.servers.port(ServerId::OWN).unwrap_or_default());
        }
        let orphans: BTreeSet<ServerId> = self.servers.orphans().collect();
        self.orphaned.retain(|server, _| orphans.contains(server));
        for server in orphans {
            let since = *self.orphaned.entry(server).or_insert(now);
            let mut listeners = self.server_of.iter().filter(|(_, of)| **of == server);
            let is_over = now.saturating_duration_since(since) >= patience;
            if is_over && !listeners.any(|(listener, _)| is_expected(self, *listener)) {
                self.orphaned.remove(&server);
                self.close(server);
            }
        }
    }
}

//! What assigns connections, and what is not available when that is the kernel.

use std::fmt;
use std::str::FromStr;

use super::{Config, DialectChoice, Program, UnknownWord, words};
use crate::addr::ListenAddr;

/// What assigns a connection to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DispatchBy {
    /// The master, which hands each one over.
    #[default]
    Handover,
    /// The kernel, by the client's address: each slot has listeners of its own, of which its worker accepts by itself.
    Kernel,
}

words!(DispatchBy, "handover or kernel", Handover = "handover", Kernel = "kernel");

/// Why there are no limits for clients where the kernel assigns.
const UNSEEN: &str = "haft does not see a client's connections (a packet filter such as nftables can limit them)";

/// What contradicts the way in which connections are assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    /// The key of what cannot be.
    pub key: &'static str,
    /// Why.
    pub why: &'static str,
}

impl Config {
    /// The first thing that was asked for and that cannot be had with the kernel as the one that assigns, or without it.
    pub fn contradiction(&self) -> Option<Contradiction> {
        let command = match &self.program {
            Program::Command(command) => Some(command),
            Program::BuiltIn(_) => None,
        };
        let takes_listeners = command.is_some_and(|command| command.dialect == DialectChoice::ListenFds);
        let by_kernel = [
            (!self.affinity.is_address_alone(), "affinity", "the kernel knows clients by their address alone"),
            (!self.sessions.sticky_paths.is_empty(), "sticky-path", "the kernel sees no request"),
            (self.proxies.protocol, "proxy-protocol", "the kernel takes the proxy for the client"),
            (self.proxies.header.is_some(), "client-ip-header", "the kernel takes the proxy for the client"),
            (
                self.listen.iter().flatten().any(|listen| matches!(listen.addr, ListenAddr::Unix(_))),
                "listen",
                "the kernel cannot choose a worker on a Unix socket",
            ),
            (self.limits.rate_per_client.is_some(), "max-rate-per-client", UNSEEN),
            (self.limits.waiting_per_client.is_some(), "max-waiting-per-client", UNSEEN),
            (self.limits.rate.is_some(), "max-rate", UNSEEN),
            (!self.limits.allow.is_empty(), "allow", UNSEEN),
            (!self.limits.deny.is_empty(), "deny", UNSEEN),
            (
                self.listen.iter().flatten().any(|listen| listen.is_passed),
                "listen",
                "a passed socket has one accept queue, where the kernel needs one for each worker; without the .socket unit \
                 haft opens them itself",
            ),
            (
                command.is_some_and(|command| command.node.style.message().is_some()),
                "node-style",
                "the kernel sends no message with a connection",
            ),
            (!self.busy_poll.is_zero(), "busy-poll", "haft has no part in a connection that it could be awake for"),
            (
                takes_listeners && self.hang_kill,
                "hang-kill",
                "a program with the dialect listen-fds is never found to hang, since it acknowledges nothing",
            ),
            (
                takes_listeners && self.care.health.is_some(),
                "health-check",
                "haft cannot give a connection to a program with the dialect listen-fds, which accepts by itself; ask its port from \
                 outside (a load balancer's or a container engine's health check)",
            ),
        ];
        let by_handover = [(
            takes_listeners,
            "dialect",
            "a program that takes its listeners over (listen-fds) accepts by itself, so the kernel has to choose \
             (--dispatch kernel)",
        )];
        let checks = match self.dispatch {
            DispatchBy::Kernel => &by_kernel[..],
            DispatchBy::Handover => &by_handover[..],
        };
        checks.iter().find(|(is_so, ..)| *is_so).map(|(_, key, why)| Contradiction { key, why })
    }

    /// How many descriptors the master holds as listeners: in all, and for each worker.
    pub(super) fn listeners(&self) -> (u64, u64) {
        let addresses = self.listen.as_ref().map_or(1, Vec::len) as u64;
        match self.dispatch {
            DispatchBy::Handover => (addresses, 0),
            DispatchBy::Kernel => (0, addresses),
        }
    }
}

//! What a program does that cannot be sticky below haft: each kind is logged once, with the cure.

/// One kind, as the preload names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// `listen({ exclusive: true })`.
    Exclusive,
    /// `listen({ reusePort: true })`.
    ReusePort,
    /// A socket that was bound before `listen()`.
    BoundSocket,
    /// The program starts workers of its own, by Node's cluster module.
    Primary,
    /// The program starts processes of its own (`child_process.fork`). Many do, and serve nevertheless.
    Fork,
    /// A server in a thread of the program's (`worker_threads`).
    Thread,
    /// A Socket.IO that is in the program's own file, where sessions are to be tagged.
    Bundled,
    /// The same, where rooms are to be shared.
    BundledRooms,
    /// A Socket.IO that is too old to share rooms.
    OldRooms,
}

impl Trouble {
    const ALL: [Self; 9] = [
        Self::Exclusive,
        Self::ReusePort,
        Self::BoundSocket,
        Self::Primary,
        Self::Fork,
        Self::Thread,
        Self::Bundled,
        Self::BundledRooms,
        Self::OldRooms,
    ];

    /// Reads what the preload has sent.
    pub fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trouble| trouble.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::ReusePort => "reuse_port",
            Self::BoundSocket => "bound_socket",
            Self::Primary => "primary",
            Self::Fork => "fork",
            Self::Thread => "thread",
            Self::Bundled => "bundled",
            Self::BundledRooms => "rooms_bundled",
            Self::OldRooms => "rooms_old",
        }
    }

    /// What is wrong, and the cure.
    pub fn text(self) -> &'static str {
        match self {
            Self::Exclusive => {
                "the program listens with `exclusive: true`: each worker binds the port by itself, only one gets it, and \
                 none of its clients go by haft. Leave that option out"
            }
            Self::ReusePort => {
                "the program listens with `reusePort: true`: the kernel spreads its clients over the workers without \
                 regard to their sessions, and none of them go by haft. Leave that option out"
            }
            Self::BoundSocket => {
                "the program listens on a socket that it has bound by itself (net.BoundSocket): its clients do not go by \
                 haft. Give the port and the address to listen()"
            }
            Self::Primary => {
                "the program is a primary: it starts workers by Node's cluster module, as haft does. Give haft the file \
                 of the worker instead (that of setupPrimary({ exec }), or what runs where cluster.isWorker is true)"
            }
            Self::Fork => {
                "the program starts processes by child_process.fork and has asked for no server itself. If those are to \
                 serve, give haft their file instead (haft -- node FILE)"
            }
            Self::Thread => {
                "a thread of the program (worker_threads) listens by itself: threads cannot ask haft for a port, so only one \
                 worker gets it, and none of its clients go by haft. Let the program's main thread listen; haft starts as \
                 many processes as there are CPUs"
            }
            Self::Bundled => {
                "the program's Socket.IO is in a file of its own making (a bundle of esbuild, webpack or Next): haft \
                 cannot tag its sessions, so --affinity session does not find them again. Leave socket.io out of the \
                 bundle (esbuild: --external:socket.io; Next: serverExternalPackages), or use --affinity ip"
            }
            Self::BundledRooms => {
                "the program's Socket.IO is in a file of its own making (a bundle of esbuild, webpack or Next): what it \
                 sends to a room or to all clients reaches the clients of the same worker alone. Leave socket.io out of the \
                 bundle (esbuild: --external:socket.io; Next: serverExternalPackages), or give it an adapter"
            }
            Self::OldRooms => {
                "the program's Socket.IO is too old to share rooms: what it sends to a room or to all clients reaches the \
                 clients of the same worker alone. Install socket.io 4 (npm install socket.io@4), or give it an adapter"
            }
        }
    }
}

/// What haft itself notices, in the words of the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticed {
    /// A server came after workers had begun to accept from its listener for another one.
    LateServer,
    /// The workers listen on different ports.
    PortsApart,
    /// A worker that was to be ready listens by itself.
    OwnListener,
    /// A worker that was to be ready has asked for nothing that it could be given connections for.
    NeverListens,
    /// A worker ended since its Node could not read the preload's file.
    PreloadUnreadable,
}

impl Noticed {
    const ALL: [Self; 5] =
        [Self::LateServer, Self::PortsApart, Self::OwnListener, Self::NeverListens, Self::PreloadUnreadable];

    fn name(self) -> &'static str {
        match self {
            Self::LateServer => "late_server",
            Self::PortsApart => "ports_apart",
            Self::OwnListener => "own_listener",
            Self::NeverListens => "never_listens",
            Self::PreloadUnreadable => "preload_unreadable",
        }
    }
}

/// How often each was seen: it is logged the first time.
#[derive(Debug, Default)]
pub struct Troubles {
    reported: [u64; Trouble::ALL.len()],
    noticed: [u64; Noticed::ALL.len()],
}

impl Troubles {
    /// A worker does it: this is logged once for each kind.
    pub fn report(&mut self, worker: u64, trouble: Trouble) {
        if self.add(trouble) {
            tracing::warn!(worker, "{}", trouble.text());
        }
    }

    /// A worker has reported one. Returns whether it is to be logged now.
    fn add(&mut self, trouble: Trouble) -> bool {
        let count = &mut self.reported[trouble as usize];
        *count = count.saturating_add(1);
        *count == 1 && trouble != Trouble::Fork
    }

    /// haft has noticed one, and has logged it.
    pub fn note(&mut self, noticed: Noticed) {
        self.noticed[noticed as usize] += 1;
    }

    /// Whether a worker has reported this one.
    pub fn has(&self, trouble: Trouble) -> bool {
        self.reported[trouble as usize] > 0
    }

    /// Whether haft has noticed this one.
    pub fn has_noticed(&self, noticed: Noticed) -> bool {
        self.noticed[noticed as usize] > 0
    }

    /// How often each kind was seen, all kinds.
    pub fn by_kind(&self) -> Vec<(&'static str, u64)> {
        let reported = Trouble::ALL.map(Trouble::name).into_iter().zip(self.reported);
        reported.chain(Noticed::ALL.map(Noticed::name).into_iter().zip(self.noticed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_and_counted_and_forks_only_when_asked_for() {
        let mut troubles = Troubles::default();
        for trouble in Trouble::ALL {
            assert_eq!(Trouble::read(trouble.name()), Some(trouble));
            assert_eq!(troubles.add(trouble), trouble != Trouble::Fork, "{trouble:?}");
            assert!(!troubles.add(trouble) && troubles.has(trouble), "{trouble:?}");
        }
        troubles.note(Noticed::OwnListener);
        let kinds = troubles.by_kind();
        for (trouble, noticed) in Trouble::ALL.iter().zip(Noticed::ALL.iter().cycle()) {
            assert_eq!(kinds[*trouble as usize], (trouble.name(), 2));
            let count = u64::from(*noticed == Noticed::OwnListener);
            assert_eq!(kinds[Trouble::ALL.len() + *noticed as usize], (noticed.name(), count));
        }
        assert_eq!(Trouble::read("another"), None);
    }
}

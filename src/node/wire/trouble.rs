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
    /// A Socket.IO that is in the program's own file, where sessions are to be tagged.
    Bundled,
    /// The same, where rooms are to be shared.
    BundledRooms,
    /// A Socket.IO that is too old to share rooms.
    OldRooms,
}

impl Trouble {
    const ALL: [Self; 8] = [
        Self::Exclusive,
        Self::ReusePort,
        Self::BoundSocket,
        Self::Primary,
        Self::Fork,
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
            Self::ReusePort => "reuse-port",
            Self::BoundSocket => "bound-socket",
            Self::Primary => "primary",
            Self::Fork => "fork",
            Self::Bundled => "bundled",
            Self::BundledRooms => "rooms-bundled",
            Self::OldRooms => "rooms-old",
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
            Self::Bundled => {
                "the program's Socket.IO is in a file of its own making (a bundle of esbuild, webpack or Next): haft \
                 cannot tag its sessions, so --affinity session does not find them again. Leave socket.io out of the \
                 bundle (esbuild: --external:socket.io; Next: serverExternalPackages), or use --affinity ip"
            }
            Self::BundledRooms => {
                "the program's Socket.IO is in a file of its own making (a bundle of esbuild, webpack or Next): what it \
                 sends to a room or to everybody reaches the clients of the same worker alone. Leave socket.io out of the \
                 bundle (esbuild: --external:socket.io; Next: serverExternalPackages), or give it an adapter"
            }
            Self::OldRooms => {
                "the program's Socket.IO is too old to share rooms: what it sends to a room or to everybody reaches the \
                 clients of the same worker alone. Install socket.io 4 (npm install socket.io@4), or give it an adapter"
            }
        }
    }
}

/// Which of them were logged.
#[derive(Debug, Default)]
pub struct Troubles {
    seen: Vec<Trouble>,
}

impl Troubles {
    /// A worker does it: this is logged once for each kind.
    pub fn tell(&mut self, worker: u64, trouble: Trouble) {
        if self.add(trouble) {
            tracing::warn!(worker, "{}", trouble.text());
        }
    }

    /// A worker has reported one. Returns whether it is to be logged now.
    fn add(&mut self, trouble: Trouble) -> bool {
        let is_new = !self.seen.contains(&trouble);
        if is_new {
            self.seen.push(trouble);
        }
        is_new && trouble != Trouble::Fork
    }

    /// Whether a worker has reported this one.
    pub fn has(&self, trouble: Trouble) -> bool {
        self.seen.contains(&trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_and_forks_only_when_asked_for() {
        let mut troubles = Troubles::default();
        for trouble in Trouble::ALL {
            assert_eq!(Trouble::read(trouble.name()), Some(trouble));
            assert_eq!(troubles.add(trouble), trouble != Trouble::Fork, "{trouble:?}");
            assert!(!troubles.add(trouble) && troubles.has(trouble), "{trouble:?}");
        }
        assert_eq!(Trouble::read("another"), None);
    }
}

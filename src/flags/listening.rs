//! Where clients connect.

use crate::addr::{Listen, ListenAddr, PassedAddr};
use crate::config::Program;
use crate::flags::environment::PORT;
use crate::flags::error::FlagsError;
use crate::flags::number::number;
use crate::flags::passed::{self, ListenArg};
use crate::flags::provenance::Provenance;

/// listen(2) takes an `int`.
const MAX_WAITING: u64 = i32::MAX as u64;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Listening")]
pub(super) struct ListenFlags {
    /// Where clients connect; repeatable
    ///
    /// `3000` or `:3000` is every interface, IPv4 and IPv6; `127.0.0.1:3000` or `[::1]:3000` is one address; `unix:/path`
    /// is a Unix socket; `name:web` is the socket that systemd passes by this name (FileDescriptorName=). haft listens on
    /// each socket that is passed, whether it is named here or not. Without this flag, a Node program listens where it
    /// asks to. With it, one of the program's servers gets these connections: the one that asks for the same port,
    /// otherwise its first one. `443=3000` names it: port 443 belongs to the server that asks for port 3000.
    #[arg(short, long, value_name = "ADDR[=PORT]", default_values_t = [ListenArg::default()])]
    listen: Vec<ListenArg>,

    // The default is the kernel's own default cap since Linux 5.4: as much as it gives without being asked for more,
    // so that a crowd that reconnects at once is not met with dropped SYNs.
    /// Maximum number of connections in the kernel's accept queue, for each listener
    ///
    /// The kernel caps it at net.core.somaxconn.
    #[arg(long, value_name = "N", default_value = "4096", value_parser = number::<1, MAX_WAITING, u32>)]
    pub(super) backlog: u32,
}

impl ListenFlags {
    /// Where clients connect, nothing if that is left to what may be a Node program; and where they do by default.
    /// `passed`: sockets that a service manager has passed.
    pub(super) fn resolve(
        self,
        program: &Program,
        passed: &[PassedAddr],
        provenance: &Provenance,
    ) -> Result<(Option<Vec<Listen>>, ListenAddr), FlagsError> {
        let default = provenance.environment().port.as_deref().map(port).transpose()?.unwrap_or_default();
        let may_ask = matches!(program, Program::Command(command) if command.dialect.may_be_node());
        let has_default = !may_ask && passed.is_empty();
        let args = provenance.is_given("listen").then_some(self.listen);
        let listen = passed::resolve(args, passed, provenance)?;
        let mut named = listen.iter().flatten().filter(|listen| listen.server_port.is_some() && !may_ask);
        if let Some(named) = named.next() {
            return Err(FlagsError::NoServer { name: provenance.name("listen"), listen: named.clone() });
        }
        let listen =
            listen.or_else(|| has_default.then(|| vec![Listen { addr: default.clone(), ..Listen::default() }]));
        Ok((listen, default))
    }
}

/// A platform's `PORT`: it connects from outside of this host.
fn port(text: &str) -> Result<ListenAddr, FlagsError> {
    let why = || format!("invalid value `{text}`: it is not a port, a number from 0 to 65535");
    match text.parse() {
        Ok(port) => Ok(ListenAddr::DualStack(port)),
        Err(_) => Err(FlagsError::Variable { name: PORT.to_owned(), why: why() }),
    }
}

/// Refuses two listeners that could not both be bound, the admin listener among them.
pub(super) fn check_apart(
    listen: &[Listen],
    admin: Option<&ListenAddr>,
    provenance: &Provenance,
) -> Result<(), FlagsError> {
    let refuse = |key, addr: &ListenAddr, other: &ListenAddr, other_is| {
        Err(FlagsError::Overlap { name: provenance.name(key), addr: addr.clone(), other: other.clone(), other_is })
    };
    let listen: Vec<_> = listen.iter().map(|listen| &listen.addr).collect();
    for (i, addr) in listen.iter().enumerate() {
        if let Some(other) = listen[..i].iter().find(|other| other.overlaps(addr)) {
            return refuse("listen", addr, other, "listened on already");
        }
    }
    match admin.and_then(|admin| Some((admin, listen.iter().find(|other| other.overlaps(admin))?))) {
        Some((admin, other)) => refuse("admin", admin, other, "where clients connect"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::flags::testing::{config, refused};

    fn listen(args: &[&str]) -> Option<Vec<String>> {
        Some(config(args).listen?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn listen_may_be_repeated_and_replaces_the_default() {
        let listen = |args: &[&str]| listen(args).expect("listeners");
        assert_eq!(listen(&[]), ["127.0.0.1:3000"]);
        assert_eq!(listen(&["-l", "8080"]), [":8080"]);
        assert_eq!(listen(&["-l", "8080", "--listen=unix:/run/x"]), [":8080", "unix:/run/x"]);
        assert!(refused(&["--listen", "example.org:80"]).contains("give an IP address"));
    }

    #[test]
    fn a_listener_may_name_the_server_that_it_is_for() {
        assert_eq!(
            listen(&["-l", "443=3000", "-l", "unix:/a=b=9", "--", "x"]).expect("two"),
            [":443=3000", "unix:/a=b=9"]
        );
        for wrong in ["443=0", "443=70000"] {
            assert!(refused(&["-l", wrong, "--", "x"]).contains("not a number from 1 to 65535"), "{wrong}");
        }
        assert!(refused(&["-l", "443=3000"]).contains("only a server of a Node program has a port of its own"));
    }

    #[test]
    fn a_node_program_may_choose_where_to_listen() {
        for dialect in ["--dialect=auto", "--dialect=node"] {
            assert_eq!(listen(&[dialect, "--", "x"]), None);
            assert_eq!(listen(&[dialect, "-l", "127.0.0.1:3000", "--", "x"]), listen(&[]));
            // haft does not listen at its default then.
            assert_eq!(listen(&[dialect, "--admin=127.0.0.1:3000", "--", "x"]), None);
        }
        assert_eq!(listen(&["--dialect=haft", "--", "x"]), listen(&[]));
        let both = ["--dialect=haft", "--admin=127.0.0.1:3000", "--", "x"];
        assert!(refused(&both).contains("--admin 127.0.0.1:3000: it overlaps with 127.0.0.1:3000"));
    }

    #[test]
    fn listeners_that_cannot_both_be_bound_are_refused() {
        for (args, message) in [
            (vec!["-l", "3000", "-l", ":3000"], "--listen :3000: it overlaps with :3000, which is listened on already"),
            (vec!["-l", "3000", "-l", "[::1]:3000"], "--listen [::1]:3000: it overlaps with :3000"),
            (
                vec!["--admin", "127.0.0.1:3000"],
                "--admin 127.0.0.1:3000: it overlaps with 127.0.0.1:3000, which is where",
            ),
            (vec!["-l", "unix:/a", "--admin", "unix:/a"], "--admin unix:/a: it overlaps"),
        ] {
            assert!(refused(&args).contains(message), "{}", refused(&args));
        }
        config(&["-l", "127.0.0.1:0", "-l", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    }

    #[test]
    fn backlog_is_what_listen_takes() {
        assert_eq!(config(&[]).backlog, 4096);
        assert_eq!(config(&["--backlog", "1"]).backlog, 1);
        assert!(refused(&["--backlog", "0"]).contains("write a number from 1 to 2147483647"));
        assert!(refused(&["--backlog", "2147483648"]).contains("write a number"));
    }
}

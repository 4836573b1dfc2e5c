//! `haft front`: the configuration of a proxy before several hosts, each with a haft of its own.
//!
//! A session id names its host in plain text ([`HostId`]), so the proxy needs neither cookies nor tables: it agrees with any
//! other of the same configuration, and with itself after a restart.

mod haproxy;
mod nginx;

#[cfg(test)]
mod tests;

use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;

use crate::addr::ListenAddr;
use crate::peek::TrustedProxy;
use crate::route::HostId;

/// Write the configuration of a proxy before several hosts, and the flags of the haft on each
///
/// haft front haproxy --host A=10.0.0.1:3000 --host B=10.0.0.2:3000 > /etc/haproxy/haproxy.cfg
///
/// haft front nginx --host A=10.0.0.1:3000 --host B=10.0.0.2:3000 > /etc/nginx/nginx.conf
///
/// A request with a session id goes to the host that the id names, any other to a host by the client's address. The flags of
/// each haft stand at the top of what is written.
#[derive(Debug, clap::Args)]
pub(super) struct Front {
    /// What the configuration is for
    kind: ProxyKind,

    /// A host: the name that it has in session ids, one or two letters or digits, and where its haft listens; repeatable
    #[arg(long, value_name = "ID=ADDR:PORT", required = true)]
    host: Vec<FrontHost>,

    /// Where the proxy listens: a port, or an address and a port
    #[arg(short, long, value_name = "ADDR", default_value = "80")]
    listen: ListenAddr,

    /// From where the proxy reaches the hosts, an address or a network; repeatable [default: to be filled in]
    #[arg(long, value_name = "CIDR")]
    from: Vec<TrustedProxy>,

    /// How the hosts learn a client's address: by X-Forwarded-For (header), or by the PROXY protocol (proxy; HAProxy only)
    #[arg(long, value_name = "header|proxy", default_value = "header")]
    client: Told,

    /// The port of each haft's admin listener, where it is asked for /readyz
    #[arg(long, value_name = "PORT", default_value = "9090")]
    admin_port: u16,

    /// What each haft runs
    #[arg(last = true, value_name = "COMMAND", default_values = ["node", "server.js"])]
    command: Vec<String>,
}

/// The kinds of proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ProxyKind {
    Haproxy,
    Nginx,
}

/// How the proxy passes the client's address on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Told {
    Header,
    Proxy,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FrontHost {
    id: HostId,
    /// An address, or a name.
    name: String,
    port: u16,
}

/// A text is no [`FrontHost`].
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?}: write a host as ID=ADDR:PORT, such as A=10.0.0.1:3000 or b7=[2001:db8::1]:3000, ID of one or two letters or digits"
)]
struct HostError(String);

impl FromStr for FrontHost {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let read = || {
            let (id, addr) = text.split_once('=')?;
            let (name, port) = addr.rsplit_once(':')?;
            let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let is_name = |name: &str| {
                let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
                !name.is_empty() && !name.starts_with('-') && name.bytes().all(known)
            };
            let fits = bare.map_or_else(|| is_name(name), |bare| bare.parse::<std::net::Ipv6Addr>().is_ok());
            let port = port.parse().ok().filter(|port| *port > 0)?;
            fits.then_some(Self { id: id.parse().ok()?, name: name.to_owned(), port })
        };
        read().ok_or_else(|| HostError(text.to_owned()))
    }
}

impl FrontHost {
    /// Where its haft listens, as the proxy's configuration has it.
    fn addr(&self) -> String {
        format!("{}:{}", self.name, self.port)
    }

    /// What the ids of its sessions end with, as a regular expression: the version of the tag, the name, and the rest.
    fn pattern(&self) -> String {
        format!("1{}[A-Za-z0-9_-]{{16}}$", self.id)
    }
}

impl Front {
    pub(super) fn run(self) -> ExitCode {
        match self.text() {
            Ok(text) => super::print(text.as_bytes()),
            Err(error) => {
                eprintln!("haft front: {error}");
                ExitCode::from(2)
            }
        }
    }

    /// # Errors
    ///
    /// When the hosts or the way of passing addresses are not possible, in a sentence.
    fn text(&self) -> Result<String, String> {
        for (index, host) in self.host.iter().enumerate() {
            if let Some(other) =
                self.host[..index].iter().find(|other| other.id == host.id || other.addr() == host.addr())
            {
                return Err(format!(
                    "--host {}={} and {}={}: each host has a name and an address of its own",
                    other.id,
                    other.addr(),
                    host.id,
                    host.addr()
                ));
            }
        }
        if self.kind == ProxyKind::Nginx && self.client == Told::Proxy {
            return Err(
                "--client proxy: nginx passes a client's address to hosts only by a header; leave it out, or use haproxy"
                    .to_owned(),
            );
        }
        Ok(match self.kind {
            ProxyKind::Haproxy => haproxy::HaproxyConfig(self).to_string(),
            ProxyKind::Nginx => nginx::NginxConfig(self).to_string(),
        })
    }

    /// The flags of each host, as comments.
    fn hosts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# On each host, with the same key everywhere (openssl rand -hex 32 > /etc/haft/tag-key; chmod 600):"
        )?;
        let from: Vec<String> = self.from.iter().map(|from| format!(" --trusted-proxy {from}")).collect();
        let from = if from.is_empty() { " --trusted-proxy THIS-PROXY'S-ADDRESS".to_owned() } else { from.concat() };
        let by = match self.client {
            Told::Header => "--client-ip-header x-forwarded-for",
            Told::Proxy => "--proxy-protocol",
        };
        for host in &self.host {
            // A name need not be one that haft can listen at.
            let is_name = host.name.parse::<std::net::Ipv4Addr>().is_err() && !host.name.starts_with('[');
            let at =
                |port: u16, all: &str| if is_name { format!("{all}{port}") } else { format!("{}:{port}", host.name) };
            let (listen, admin) = (at(host.port, ""), at(self.admin_port, "*:"));
            let (id, command) = (host.id, self.command.join(" "));
            writeln!(
                f,
                "# {id}: haft -l {listen} --affinity session --host-id {id} --tag-key @/etc/haft/tag-key {by}{from} --admin {admin} -- {command}",
            )?;
        }
        writeln!(
            f,
            "# Keep the admin port to this network: any client that reaches it sees figures (and changes nothing without a token)."
        )
    }

    /// Where the proxy listens: address, if it is one alone, and port.
    fn bind(&self) -> String {
        match &self.listen {
            ListenAddr::DualStack(port) => format!(":{port}"),
            addr => addr.to_string(),
        }
    }
}

//! Behind a proxy: where the client's address comes from, and which peers are trusted with it.

use crate::config::{Proxies, Unattributed};
use crate::flags::SWITCH;
use crate::flags::error::FlagsError;
use crate::flags::provenance::Provenance;
use crate::peek::{ClientHeader, TrustedProxies, TrustedProxy};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Behind a proxy")]
pub(super) struct ProxyFlags {
    /// Trusted peers begin each connection with a PROXY header (version 1 or 2)
    ///
    /// nginx: `proxy_protocol on` in a stream server; HAProxy: `send-proxy` or `send-proxy-v2`. haft consumes the
    /// header and takes the address in it as the client's.
    #[arg(long, value_name = SWITCH, action = clap::ArgAction::Set)]
    proxy_protocol: bool,

    /// The request header in which trusted peers send the client's address: x-forwarded-for, x-real-ip, forwarded, or
    /// another name [default: none]
    ///
    /// In a list, the right-most address that is not itself a trusted proxy counts.
    #[arg(long, value_name = "NAME")]
    client_ip_header: Option<ClientHeader>,

    /// Peers that may name the client: an address or a network (10.0.0.0/8, ::1), or `unix` for peers on a Unix socket;
    /// repeatable [default: none]
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<TrustedProxy>,

    /// What haft does with a connection from a trusted peer that does not name its client: serve it (serve) or close it
    /// (close)
    ///
    /// The header is malformed, starts after 16 KiB or does not arrive within --peek-timeout, or the connection is not
    /// HTTP/1. Such a client is never taken for the proxy: the program sees the address 0.0.0.0 or ::.
    #[arg(long, value_name = "serve|close", default_value = "serve")]
    unattributed: Unattributed,
}

impl ProxyFlags {
    /// Checks that trusted peers and the source of addresses are given together.
    pub(super) fn resolve(self, provenance: &Provenance) -> Result<Proxies, FlagsError> {
        let stated = self.proxy_protocol || self.client_ip_header.is_some();
        if stated && self.trusted_proxy.is_empty() {
            let key = if self.proxy_protocol { "proxy-protocol" } else { "client-ip-header" };
            return Err(FlagsError::NobodyTrusted { name: provenance.name(key) });
        }
        if !stated && !self.trusted_proxy.is_empty() {
            return Err(FlagsError::TrustedForNothing { name: provenance.name("trusted-proxy") });
        }
        let trusted = self.trusted_proxy.iter().copied().collect::<TrustedProxies>();
        let Self { proxy_protocol: protocol, client_ip_header: header, unattributed, .. } = self;
        Ok(Proxies { protocol, header, trusted, unattributed })
    }
}

#[cfg(test)]
mod tests {
    use crate::flags::testing::{config, refused};

    #[test]
    fn who_is_believed_must_be_said() {
        assert!(refused(&["--proxy-protocol"]).contains("--proxy-protocol: name the proxies"));
        assert!(refused(&["--client-ip-header=x-real-ip"]).contains("--client-ip-header: name the proxies"));
        assert!(refused(&["--trusted-proxy=::1"]).contains("--trusted-proxy: it has no effect alone"));
        assert!(refused(&["--proxy-protocol", "--trusted-proxy=10.0.0.0/33"]).contains("--trusted-proxy"));
        let given = config(&["--proxy-protocol", "--trusted-proxy=10.0.0.0/8", "--trusted-proxy=unix"]).proxies;
        assert!(given.protocol && given.header.is_none());
        let header = config(&["--client-ip-header=X-Forwarded-For", "--trusted-proxy=::1"]).proxies.header;
        assert_eq!(header.map(|header| header.to_string()).as_deref(), Some("x-forwarded-for"));
    }
}

//! What keeps a client on one worker.

use crate::config::Affinity;
use crate::flags::number::number;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Routing")]
pub(super) struct Routing {
    /// What keeps a client on one worker: its address (ip), or nothing (none)
    ///
    /// With none a connection goes to the worker that has the fewest on their way to it, in turn if there are several.
    /// Socket.IO's long-polling needs ip; none is for services that speak only WebSocket.
    #[arg(long, value_name = "ip|none", default_value = "ip")]
    pub(super) affinity: Affinity,

    /// Leading bits of an IPv4 address that count; 24 keeps each /24 network on one worker
    #[arg(long, value_name = "BITS", default_value = "32", value_parser = number::<0, 32, u8>)]
    pub(super) ipv4_prefix: u8,

    /// Leading bits of an IPv6 address that count; 64 keeps a client whose address changes within its network
    #[arg(long, value_name = "BITS", default_value = "128", value_parser = number::<0, 128, u8>)]
    pub(super) ipv6_prefix: u8,
}

#[cfg(test)]
mod tests {
    use crate::config::{Affinity, Prefix};
    use crate::flags::testing::{config, refused};

    #[test]
    fn affinity_is_ip_unless_said_otherwise() {
        assert_eq!(config(&[]).affinity, Affinity::Ip);
        assert_eq!(config(&["--affinity", "none"]).affinity, Affinity::None);
        assert!(refused(&["--affinity", "cookie"]).contains("write ip or none"));
    }

    #[test]
    fn a_prefix_is_no_longer_than_its_address() {
        assert_eq!(config(&[]).prefix, Prefix { ipv4: 32, ipv6: 128 });
        let shorter = config(&["--ipv4-prefix", "24", "--ipv6-prefix", "64"]).prefix;
        assert_eq!(shorter, Prefix { ipv4: 24, ipv6: 64 });
        assert!(refused(&["--ipv4-prefix", "33"]).contains("write a number from 0 to 32"));
        assert!(refused(&["--ipv6-prefix", "129"]).contains("write a number from 0 to 128"));
    }
}

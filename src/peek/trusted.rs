//! The peers that may state a client's address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::addr::EndAddr;

/// One entry: what follows `--trusted-proxy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrustedProxy {
    /// All addresses of a network (written `10.0.0.0/8`; `::1` is one address). Never an IPv4-mapped IPv6 address: that is an
    /// IPv4 address.
    Net(IpNet),
    /// Any peer on a Unix socket (written `unix`).
    Unix,
}

/// Why a text is not a [`TrustedProxy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} (write 10.0.0.0/8, 192.0.2.7, 2001:db8::/32, ::1 or unix)")]
pub struct TrustedProxyError(String);

impl FromStr for TrustedProxy {
    type Err = TrustedProxyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |why: &str| Err(TrustedProxyError(why.into()));
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
        let Ok(ip) = ip.parse::<IpAddr>() else {
            return refuse("it is neither an IP address nor a network, and names are not resolved");
        };
        let most: u8 = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            // `u8::from_str` would take `+8`.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().unwrap_or(u8::MAX),
            Some(_) => u8::MAX,
        };
        if prefix > most {
            return Err(TrustedProxyError(format!("what follows the / is not a number from 0 to {most}")));
        }
        let net = IpNet::new_assert(ip, prefix);
        if net.network() != ip {
            return Err(TrustedProxyError(format!(
                "the address has bits behind its prefix: the network is {}, the address alone {ip}",
                net.trunc()
            )));
        }
        Ok(Self::Net(match ip.to_canonical() {
            // The 96 bits that all mapped addresses have in common are gone.
            v4 @ IpAddr::V4(_) if ip.is_ipv6() && prefix >= 96 => IpNet::new_assert(v4, prefix - 96),
            _ => net,
        }))
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

impl Serialize for TrustedProxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The trusted peers: those that may state a client's address. By default there are none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies(Vec<TrustedProxy>);

impl TrustedProxies {
    /// Whether the peer of a connection is one of them.
    pub fn contains(&self, peer: &EndAddr) -> bool {
        match peer {
            EndAddr::Ip(addr) => self.contains_ip(addr.ip()),
            EndAddr::Unix => self.0.contains(&TrustedProxy::Unix),
        }
    }

    /// Whether an address is one of theirs. An IPv4-mapped IPv6 address is the IPv4 address.
    pub fn contains_ip(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|proxy| matches!(proxy, TrustedProxy::Net(net) if net.contains(&ip)))
    }

    /// The entries, in the order in which they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &TrustedProxy> {
        self.0.iter()
    }

    /// Whether no peer is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<TrustedProxy> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = TrustedProxy>>(proxies: I) -> Self {
        Self(proxies.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn trusted(entries: &[&str]) -> TrustedProxies {
        entries.iter().map(|entry| entry.parse::<TrustedProxy>().expect(entry)).collect()
    }

    #[test]
    fn every_form_is_read_and_written_back() {
        for (text, written) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1"),
            ("2001:DB8::/032", "2001:db8::/32"),
            ("::1/128", "::1"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("unix", "unix"),
        ] {
            let proxy: TrustedProxy = text.parse().expect(text);
            assert_eq!(proxy.to_string(), written);
            assert_eq!(written.parse(), Ok(proxy), "{text}");
        }
    }

    #[test]
    fn a_wrong_form_says_what_is_wrong_and_how_to_write_it() {
        for (text, part) in [
            ("", "neither an IP address nor a network"),
            ("proxy.example.org", "names are not resolved"),
            ("10.0.0.0:80", "neither an IP address"),
            ("[::1]", "neither an IP address"),
            ("UNIX", "neither an IP address"),
            ("10.0.0/8", "neither an IP address"),
            (" 10.0.0.0/8", "neither an IP address"),
            ("10.0.0.0/33", "not a number from 0 to 32"),
            ("10.0.0.0/", "not a number from 0 to 32"),
            ("10.0.0.0/+8", "not a number from 0 to 32"),
            ("10.0.0.0/8/8", "not a number from 0 to 32"),
            ("10.0.0.0/255.0.0.0", "not a number from 0 to 32"),
            ("::/129", "not a number from 0 to 128"),
            ("::/264", "not a number from 0 to 128"),
            ("10.1.2.3/8", "the network is 10.0.0.0/8, the address alone 10.1.2.3"),
            ("2001:db8::1/32", "the network is 2001:db8::/32, the address alone 2001:db8::1"),
            ("::ffff:10.1.2.3/104", "the address has bits behind its prefix"),
        ] {
            let message = text.parse::<TrustedProxy>().expect_err(text).to_string();
            assert!(message.contains(part) && message.contains("write 10.0.0.0/8"), "{text}: {message}");
        }
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let proxies = trusted(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/33", "::1"]);
        for (address, trusted) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("::ffff:10.1.2.3", true),
            ("::ffff:11.1.2.3", false),
            ("::10.1.2.3", false),
            ("2001:db8:7fff::", true),
            ("2001:db8:8000::", false),
            ("::1", true),
            ("::", false),
        ] {
            assert_eq!(proxies.contains_ip(ip(address)), trusted, "{address}");
            let peer = EndAddr::Ip((ip(address), 4711).into());
            assert_eq!(proxies.contains(&peer), trusted, "{address}");
        }
    }

    #[test]
    fn families_and_unix_sockets_are_apart() {
        for (entry, ipv4, ipv6, unix) in
            [("0.0.0.0/0", true, false, false), ("::/0", false, true, false), ("unix", false, false, true)]
        {
            let proxies = trusted(&[entry]);
            assert_eq!(proxies.contains_ip(ip("192.0.2.7")), ipv4, "{entry}");
            assert_eq!(proxies.contains_ip(ip("2001:db8::7")), ipv6, "{entry}");
            assert_eq!(proxies.contains(&EndAddr::Unix), unix, "{entry}");
        }
        let none = TrustedProxies::default();
        assert!(none.is_empty() && !none.contains(&EndAddr::Unix) && !none.contains_ip(ip("127.0.0.1")));
    }

    proptest! {
        #[test]
        fn a_bit_counts_if_and_only_if_it_is_in_the_prefix(bits: u128, bit in 0..128_u8, prefix in 0..=128_u8) {
            let (v6, prefix4) = (Ipv6Addr::from_bits(bits), prefix.min(32));
            let v4 = Ipv4Addr::from_bits(bits as u32);
            // A mapped address is another family's.
            prop_assume!(IpAddr::V6(v6).to_canonical().is_ipv6());
            for (address, other, prefix, inside) in [
                (IpAddr::V6(v6), IpAddr::V6(Ipv6Addr::from_bits(bits ^ 1 << (127 - bit))), prefix, bit >= prefix),
                (v4.into(), Ipv4Addr::from_bits(bits as u32 ^ 1 << (31 - bit % 32)).into(), prefix4, bit % 32 >= prefix4),
            ] {
                let net = IpNet::new_assert(address, prefix).trunc().to_string();
                prop_assert!(trusted(&[&net]).contains_ip(address), "{net} {address}");
                prop_assert_eq!(trusted(&[&net]).contains_ip(other), inside, "{} {}", net, other);
            }
        }

        #[test]
        fn nothing_that_is_typed_panics(text in "[0-9a-fx:./]{0,20}|unix|\\PC{0,20}") {
            if let Ok(proxy) = text.parse::<TrustedProxy>() {
                prop_assert_eq!(proxy.to_string().parse(), Ok(proxy));
            }
        }
    }
}

//! Whose word about a client's address counts.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::addr::EndAddr;

/// One entry: what follows `--trusted-proxy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrustedProxy {
    /// All addresses that begin as `ip` does, in as many bits as `prefix` says (written `10.0.0.0/8`; `::1` is one
    /// address). Never an IPv4-mapped IPv6 address: that is an IPv4 address.
    Net {
        /// The first address: the bits behind the prefix are zero.
        ip: IpAddr,
        /// Number of bits: 0 to 32 or 0 to 128.
        prefix: u8,
    },
    /// Whoever comes by a Unix socket (written `unix`).
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
        let first = first(ip, prefix);
        if first != ip {
            return Err(TrustedProxyError(format!(
                "the address has bits behind its prefix: the network is {first}/{prefix}, the address alone {ip}"
            )));
        }
        Ok(match ip.to_canonical() {
            // The 96 bits that all mapped addresses have in common are gone.
            IpAddr::V4(v4) if ip.is_ipv6() && prefix >= 96 => Self::Net { ip: v4.into(), prefix: prefix - 96 },
            _ => Self::Net { ip, prefix },
        })
    }
}

/// The address with zeros behind its prefix.
fn first(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            (ip & std::net::Ipv4Addr::from_bits(!u32::MAX.checked_shr(prefix.into()).unwrap_or(0))).into()
        }
        IpAddr::V6(ip) => {
            (ip & std::net::Ipv6Addr::from_bits(!u128::MAX.checked_shr(prefix.into()).unwrap_or(0))).into()
        }
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net { ip, prefix } => match (ip, prefix) {
                (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => ip.fmt(f),
                _ => write!(f, "{ip}/{prefix}"),
            },
            Self::Unix => f.write_str("unix"),
        }
    }
}

impl Serialize for TrustedProxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// All whose word about a client's address counts. By default nobody's does.
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
        self.0.iter().any(|proxy| match (proxy, ip) {
            (TrustedProxy::Net { ip: IpAddr::V4(net), prefix }, IpAddr::V4(ip)) => {
                (net.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(*prefix)
            }
            (TrustedProxy::Net { ip: IpAddr::V6(net), prefix }, IpAddr::V6(ip)) => {
                (net.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(*prefix)
            }
            _ => false,
        })
    }

    /// The entries, in the order in which they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &TrustedProxy> {
        self.0.iter()
    }

    /// Whether nobody's word counts.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<TrustedProxy> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = TrustedProxy>>(proxies: I) -> Self {
        Self(proxies.into_iter().collect())
    }
}

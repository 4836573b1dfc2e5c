//! What must stick.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::EndAddr;

use super::hash::absorb;

/// How many leading bits of an address are the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Of an IPv4 address, 0 to 32.
    pub ipv4: u8,
    /// Of an IPv6 address, 0 to 128.
    pub ipv6: u8,
}

impl Default for Prefix {
    /// The whole of an IPv4 address. Of an IPv6 address the network: a host changes the rest by itself (RFC 8981).
    fn default() -> Self {
        Self { ipv4: 32, ipv6: 64 }
    }
}

/// What must stick, hashed: connections of equal key go to the same slot.
///
/// All 64 bits are good. Different IPv4 addresses never share a key; other inputs share one by chance, in one of 2^64
/// pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// Where hashing starts, by kind of input, so that an IPv4 address, an IPv6 address and the same bytes as a session id
/// are three inputs. Any three different numbers would do.
pub(super) const IPV4: u64 = 4;
pub(super) const IPV6: u64 = 6;
const BYTES: u64 = 8;

impl Key {
    /// The key of indistinguishable clients: those of a Unix socket, and all of an address family of which the
    /// prefix is 0.
    pub const ANYONE: Self = Self(0);

    /// The key of the client at `peer`: the first `prefix` bits of its address. Ports do not count.
    #[inline]
    pub fn of_client(peer: &EndAddr, prefix: Prefix) -> Self {
        match peer {
            EndAddr::Ip(addr) => Self::of_ip(addr.ip(), prefix),
            EndAddr::Unix => Self::ANYONE,
        }
    }

    /// The key of an address: its first `prefix` bits (more than there are: all of them). An
    /// IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) is the IPv4 address.
    #[inline]
    pub fn of_ip(ip: IpAddr, prefix: Prefix) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::of_ipv4(ip, prefix.ipv4),
            IpAddr::V6(ip) => Self::of_ipv6(ip, prefix.ipv6),
        }
    }

    #[inline]
    fn of_ipv4(ip: Ipv4Addr, prefix: u8) -> Self {
        match u32::BITS.saturating_sub(prefix.into()) {
            u32::BITS => Self::ANYONE,
            host => Self(absorb(IPV4, u64::from(ip.to_bits() >> host))),
        }
    }

    #[inline]
    fn of_ipv6(ip: Ipv6Addr, prefix: u8) -> Self {
        match u128::BITS.saturating_sub(prefix.into()) {
            u128::BITS => Self::ANYONE,
            host => {
                let kept = ip.to_bits() >> host << host;
                Self(absorb(absorb(IPV6, (kept >> 64) as u64), kept as u64))
            }
        }
    }

    /// The key of any other name, such as a session id. No bytes at all are a name too.
    pub fn of_bytes(name: &[u8]) -> Self {
        let length = absorb(BYTES, name.len() as u64);
        Self(name.chunks(8).fold(length, |state, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            absorb(state, u64::from_le_bytes(word))
        }))
    }

    /// The key that is this hash, of which all bits are good.
    pub(super) fn of_hash(bits: u64) -> Self {
        Self(bits)
    }

    /// The hash itself: 64 bits that are all good.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn key(ip: &str, ipv4: u8, ipv6: u8) -> Key {
        Key::of_ip(ip.parse().expect(ip), Prefix { ipv4, ipv6 })
    }

    /// From an implementation of the same formulas in another language.
    #[test]
    fn keys_are_the_same_in_every_process() {
        for (ip, bits) in [
            ("127.0.0.1", 0xd4cc_26b8_cab1_a5bb),
            ("10.0.0.1", 0x67fa_2f58_fd46_3128),
            ("255.255.255.255", 0x0a40_cb2a_069d_5740),
            ("::1", 0xb102_f807_a0d7_5155),
            ("2001:db8::1", 0xf637_84de_bdc6_2f4c),
        ] {
            assert_eq!(key(ip, 32, 128).bits(), bits, "{ip}");
        }
        assert_eq!(key("192.0.2.255", 24, 0).bits(), 0xa2fb_754e_d8fc_84a4);
        assert_eq!(key("2001:db8:1:2::1", 0, 56).bits(), 0x0998_31de_fd68_b416);
        assert_eq!(Key::of_bytes(b"").bits(), 0xc018_7dc4_1974_d857);
        assert_eq!(Key::of_bytes(b"lgy5fjW0yVKcPbBnAAAC").bits(), 0xb627_1c3f_60f3_5551);
    }

    #[test]
    fn clients_that_nothing_tells_apart_are_one() {
        let nothing = Prefix { ipv4: 0, ipv6: 0 };
        for ip in ["192.0.2.1", "255.255.255.255", "::1", "2001:db8::1"] {
            assert_eq!(key(ip, 0, 0), Key::ANYONE, "{ip}");
        }
        assert_eq!(Key::of_client(&EndAddr::Unix, nothing), Key::ANYONE);
        assert_eq!(Key::of_client(&EndAddr::Unix, Prefix { ipv4: 32, ipv6: 128 }), Key::ANYONE);
    }

    #[test]
    fn the_prefix_of_one_family_does_not_touch_the_other() {
        assert_ne!(key("192.0.2.1", 32, 0), key("192.0.2.2", 32, 0));
        assert_ne!(key("2001:db8::1", 0, 128), key("2001:db8::2", 0, 128));
        assert_eq!(key("192.0.2.1", 24, 128), key("192.0.2.2", 24, 128));
        assert_eq!(key("2001:db8::1", 32, 64), key("2001:db8::2", 32, 64));
    }

    #[test]
    fn an_address_is_not_the_same_key_in_another_form() {
        let forms = [key("0.0.0.7", 32, 128), key("::7", 32, 128), Key::of_bytes(&[7]), Key::of_bytes(&[0, 0, 0, 7])];
        for (i, form) in forms.iter().enumerate() {
            assert!(!forms[..i].contains(form), "{i}");
        }
    }

    #[test]
    fn zeros_at_the_end_of_a_name_count() {
        let names = [&b""[..], b"\0", b"\0\0", b"12345678", b"12345678\0", b"12345678\0\0\0\0\0\0\0\0"];
        for (i, name) in names.iter().enumerate() {
            assert!(names[..i].iter().all(|other| Key::of_bytes(other) != Key::of_bytes(name)), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_mapped_address_is_the_ipv4_address(bits: u32, ipv4 in 0..=32_u8, ipv6 in 0..=128_u8) {
            let (ip, prefix) = (Ipv4Addr::from_bits(bits), Prefix { ipv4, ipv6 });
            prop_assert_eq!(Key::of_ip(ip.to_ipv6_mapped().into(), prefix), Key::of_ip(ip.into(), prefix));
        }

        #[test]
        fn ports_do_not_count(bits: u128, one: u16, other: u16, ipv6 in 0..=128_u8) {
            let (ip, prefix) = (IpAddr::from(Ipv6Addr::from_bits(bits)), Prefix { ipv4: 32, ipv6 });
            let client = |port| Key::of_client(&EndAddr::Ip(SocketAddr::new(ip, port)), prefix);
            prop_assert_eq!(client(one), client(other));
            prop_assert_eq!(client(one), Key::of_ip(ip, prefix));
        }

        #[test]
        fn an_ipv4_bit_counts_if_and_only_if_it_is_in_the_prefix(bits: u32, bit in 0..32_u8, prefix: u8) {
            let key = |bits| Key::of_ip(Ipv4Addr::from_bits(bits).into(), Prefix { ipv4: prefix, ipv6: 0 });
            prop_assert_eq!(key(bits) != key(bits ^ (1 << (31 - bit))), bit < prefix);
        }

        #[test]
        fn an_ipv6_bit_counts_if_and_only_if_it_is_in_the_prefix(
            bits: u128,
            bit in 0..128_u8,
            prefix: u8,
        ) {
            let key = |bits| Key::of_ip(Ipv6Addr::from_bits(bits).into(), Prefix { ipv4: 0, ipv6: prefix });
            prop_assert_eq!(key(bits) != key(bits ^ (1 << (127 - bit))), bit < prefix);
        }

        #[test]
        fn names_that_differ_have_keys_that_differ(
            name in prop::collection::vec(any::<u8>(), 1..40),
            at: usize,
            flip in 1..=255_u8,
        ) {
            let mut other = name.clone();
            other[at % name.len()] ^= flip;
            prop_assert_ne!(Key::of_bytes(&name), Key::of_bytes(&other));
        }
    }
}

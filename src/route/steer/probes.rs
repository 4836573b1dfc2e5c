//! Probes: packets by which haft finds out where the members of a group stand. They say themselves where they go.

use super::machine::{Code, Op};
use super::{IPV4_SOURCE, VERSION, VERSION_6};

/// How many hops a packet may still take, in either header.
pub(super) const IPV4_TTL: u32 = 8;
pub(super) const IPV6_HOP_LIMIT: u32 = 7;
/// So many places can a probe over IPv4 name: in the lower half of its source address.
pub const MARKS_IPV4: u32 = 1 << 16;
/// So many can one over IPv6 name: by its differentiated services code point (RFC 2474).
pub const MARKS_IPV6: u32 = 1 << 6;
/// Where in the first word of an IPv6 header that ends.
const IPV6_CLASS: u32 = 22;

/// Returns the mark of a packet whose time to live is 1.
pub(super) fn go_where_they_say(code: &mut Code) {
    code.load_byte(0);
    code.with(Op::And, VERSION);
    let ipv6 = code.jump_if_equal(VERSION_6);
    code.load_byte(IPV4_TTL);
    let ipv4_probe = code.jump_if_equal(1);
    let ipv4_client = code.jump();
    code.land(ipv4_probe);
    code.load_word(IPV4_SOURCE);
    code.with(Op::And, MARKS_IPV4 - 1);
    code.return_accumulator();
    code.land(ipv6);
    code.load_byte(IPV6_HOP_LIMIT);
    let ipv6_probe = code.jump_if_equal(1);
    let ipv6_client = code.jump();
    code.land(ipv6_probe);
    code.load_word(0);
    code.with(Op::ShiftRight, IPV6_CLASS);
    code.with(Op::And, MARKS_IPV6 - 1);
    code.return_accumulator();
    code.land(ipv4_client);
    code.land(ipv6_client);
}

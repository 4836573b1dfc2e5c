//! The program against the model, on a machine as the kernel has it; and how evenly it spreads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::super::tests::{WHOLE, load_is_even, random_ipv4, random_ipv6_subnets, sequential_ipv6_hosts, strided_ipv4};
use super::machine::{
    A, ABS, ALU, B, IMM, JA, JEQ, JGE, JGT, JMP, K, LD, LDX, MEM, MISC, NETWORK_HEADER, RET, ST, TAX, TXA, W, X,
};
use super::probes::{IPV4_TTL, IPV6_HOP_LIMIT};
use super::*;

/// Most instructions that the kernel takes.
const MAX_INSTRUCTIONS: usize = 4096;

/// Checks a program as the kernel does (`bpf_check_classic`): its length, where jumps go, how it ends, and that no memory
/// is read that was not written on every way there, as far as `check_load_and_stores` sees: it takes what stands behind a
/// return for reached from it.
fn check(program: &[Instruction]) {
    assert!((1..=MAX_INSTRUCTIONS).contains(&program.len()), "{} instructions", program.len());
    assert_eq!(program.last().expect("one").code & 0x07, RET);
    let (mut written, mut on_all_ways) = (0_u16, vec![u16::MAX; program.len()]);
    for (at, Instruction { code, jt, jf, k }) in program.iter().copied().enumerate() {
        written &= on_all_ways[at];
        let ways = match code & 0x07 {
            ST => {
                written |= 1 << k;
                continue;
            }
            LD | LDX if code & 0xe0 == MEM => {
                assert_ne!(written & 1 << k, 0, "instruction {at} reads what was not written");
                continue;
            }
            JMP if code == JMP | JA => vec![k],
            JMP => vec![jt.into(), jf.into()],
            _ => continue,
        };
        for way in ways {
            *on_all_ways.get_mut(at + 1 + way as usize).expect("a jump within the program") &= written;
        }
        written = u16::MAX;
    }
}

/// Runs a program on a packet from its network header on.
fn run(program: &[Instruction], packet: &[u8]) -> u32 {
    let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [None::<u32>; 16], 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let operand = if code & X == X { x } else { k };
        let packet_at = || (k - NETWORK_HEADER) as usize;
        match code {
            _ if code == LD | W | IMM => a = k,
            _ if code == LD | W | MEM => a = memory[k as usize].expect("written before"),
            _ if code == LDX | W | MEM => x = memory[k as usize].expect("written before"),
            _ if code == LD | B | ABS => a = packet[packet_at()].into(),
            _ if code == LD | W | ABS => {
                a = u32::from_be_bytes(packet[packet_at()..][..4].try_into().expect("four bytes"));
            }
            ST => memory[k as usize] = Some(a),
            _ if code == MISC | TAX => x = a,
            _ if code == MISC | TXA => a = x,
            _ if code == RET | K => return k,
            _ if code == RET | A => return a,
            _ if code == JMP | JA => at += k as usize,
            _ if code & !X == JMP | JEQ => at += usize::from(if a == operand { jt } else { jf }),
            _ if code & !X == JMP | JGT => at += usize::from(if a > operand { jt } else { jf }),
            _ if code & !X == JMP | JGE => at += usize::from(if a >= operand { jt } else { jf }),
            _ if code & 0x07 == ALU => {
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(operand),
                    0x20 => a.wrapping_mul(operand),
                    0x40 => a | operand,
                    0x50 => a & operand,
                    0x60 => a << operand,
                    0x70 => a >> operand,
                    0x90 => a % operand,
                    0xa0 => a ^ operand,
                    other => panic!("operation {other:#x}"),
                }
            }
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// An IP header with this source, and nothing else that could be mistaken for it.
fn packet(source: IpAddr) -> Vec<u8> {
    let (mut header, at, octets) = match source {
        IpAddr::V4(ip) => (vec![0xaa; 20], IPV4_SOURCE, ip.octets().to_vec()),
        IpAddr::V6(ip) => (vec![0xaa; 40], IPV6_SOURCE, ip.octets().to_vec()),
    };
    header[0] = if source.is_ipv4() { 0x45 } else { 0x6a };
    header[at as usize..][..octets.len()].copy_from_slice(&octets);
    header
}

fn steering(slots: usize, prefix: Prefix) -> Steering {
    Steering::new(slots, prefix).expect("a number of slots that is possible")
}

fn steering_past(slots: usize, prefix: Prefix, is_bypassed: impl Fn(Slot) -> bool) -> Steering {
    Steering::among(Table::new(slots).expect("a number of slots that is possible"), prefix, is_bypassed)
}

#[test]
fn every_program_fits_the_machine() {
    for slots in (1..=64).chain([100, 1000, 1024]) {
        for prefix in [WHOLE, Prefix { ipv4: 24, ipv6: 56 }, Prefix { ipv4: 0, ipv6: 0 }, Prefix { ipv4: 1, ipv6: 97 }]
        {
            check(&steering(slots, prefix).program());
            // As many runs as there can be.
            check(&steering_past(slots, prefix, |slot| slot.0 % 2 == 1).program());
        }
    }
    // What it costs to be the same as hand-over, so that growth is noticed.
    assert_eq!([2, 8, 16, 32, 33].map(|slots| steering(slots, WHOLE).program().len()), [676, 1324, 2188, 3916, 476]);
}

#[test]
fn up_to_so_many_slots_the_kernel_chooses_as_hand_over_does() {
    let table = |slots| Table::new(slots).expect("a table");
    for ip in random_ipv4(9).into_iter().chain(random_ipv6_subnets(9)).step_by(100) {
        for slots in [1, 2, 3, 16, MAX_RENDEZVOUS] {
            assert_eq!(steering(slots, WHOLE).slot_of(ip), table(slots).choose(Key::of_ip(ip, WHOLE)));
        }
    }
}

#[test]
fn the_clients_of_a_bypassed_slot_go_elsewhere_and_nobody_else_moves() {
    for slots in [2, 5, 32, 33, 64] {
        let (all, table) = (steering(slots, WHOLE), Table::new(slots).expect("a table"));
        let gone = [Slot(1), Slot(slots as u16 - 1)];
        let rest = steering_past(slots, WHOLE, |slot| gone.contains(&slot));
        let mut from_there = Vec::new();
        for ip in random_ipv4(5) {
            let (before, after) = (all.slot_of(ip), rest.slot_of(ip));
            assert!(!gone.contains(&after), "{slots} slots, {ip}");
            if !gone.contains(&before) {
                assert_eq!(before, after, "{slots} slots, {ip}");
                continue;
            }
            from_there.push(after);
            if slots <= MAX_RENDEZVOUS {
                let mut order = table.order(Key::of_ip(ip, WHOLE));
                assert_eq!(Some(after), order.find(|slot| !gone.contains(slot)), "{slots} slots, {ip}");
            }
        }
        from_there.sort();
        from_there.dedup();
        assert!(slots > 5 || from_there.len() == rest.open.len(), "{slots} slots: {from_there:?}");
        assert_eq!(steering_past(slots, WHOLE, |_| true), all, "if all are bypassed, none is");
    }
}

#[test]
fn load_is_even_beyond_that_too() {
    let sets = [
        ("IPv4, every address", strided_ipv4(1)),
        ("IPv4, every 256.", strided_ipv4(256)),
        ("IPv4, random", random_ipv4(1)),
        ("IPv6, sequential hosts", sequential_ipv6_hosts()),
        ("IPv6, random /64s", random_ipv6_subnets(1)),
    ];
    for (set, clients) in sets {
        for slots in [33, 48, 64, 100] {
            let steering = steering(slots, WHOLE);
            let chosen: Vec<Slot> = clients.iter().map(|ip| steering.slot_of(*ip)).collect();
            load_is_even(set, slots, &chosen);
        }
    }
}

#[test]
fn clients_that_nothing_tells_apart_go_where_hand_over_sends_them() {
    let nothing = Prefix { ipv4: 0, ipv6: 0 };
    for slots in [1, 2, 7, 32, 100] {
        let steering = steering(slots, nothing);
        for ip in ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().expect(ip)) {
            assert_eq!(run(&steering.program(), &packet(ip)), u32::from(steering.slot_of(ip).0));
        }
    }
}

/// The inverse of `hash::finish`, for making scores that are nearly equal.
fn unfinish(mut hash: u64) -> u64 {
    // Newton's iteration doubles the number of right bits: an odd number is its own inverse modulo 8.
    let inverse =
        |factor: u64| (0..5).fold(factor, |guess, _| guess.wrapping_mul(2u64.wrapping_sub(factor.wrapping_mul(guess))));
    for factor in FINISH_FACTORS.into_iter().rev() {
        hash ^= hash >> FINISH_SHIFT;
        hash = hash.wrapping_mul(inverse(factor));
    }
    hash ^ (hash >> FINISH_SHIFT)
}

#[test]
fn scores_that_differ_in_the_lower_half_alone_are_told_apart() {
    assert_eq!(super::super::hash::finish(unfinish(0x0123_4567_89ab_cdef)), 0x0123_4567_89ab_cdef);
    let ip: IpAddr = "192.0.2.7".parse().expect("an address");
    let key = Key::of_ip(ip, WHOLE).bits();
    for (scores, best) in [
        ([5 << 32 | 1, 5 << 32 | 2, 5 << 32 | 1], 1),
        ([5 << 32 | 2, 5 << 32 | 2, 5 << 32 | 2], 0),
        ([5 << 32, 5 << 32 | 0x8000_0000, 5 << 32 | 0x7fff_ffff], 1),
        ([5 << 32 | 9, 5 << 32 | 8, 6 << 32], 2),
        ([0x8000_0000_0000_0000, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0001], 2),
    ] {
        let seeds = scores.map(|score| unfinish(score) ^ key);
        let mut code = Code::new();
        let steering = steering(3, WHOLE);
        steering.ipv4_key(&mut code);
        rendezvous(&mut code, &steering.open, &seeds);
        code.return_accumulator();
        assert_eq!(run(&code.finished(), &packet(ip)), best, "{scores:?}");
    }
}

fn prefixes() -> impl Strategy<Value = Prefix> {
    prop_oneof![
        Just(WHOLE),
        (0..=32_u8, 0..=128_u8).prop_map(|(ipv4, ipv6)| Prefix { ipv4, ipv6 }),
        prop::sample::select(vec![0, 32, 64, 96, 127]).prop_map(|ipv6| Prefix { ipv4: 24, ipv6 }),
    ]
}

/// Not those that the kernel drops.
fn addresses() -> impl Strategy<Value = IpAddr> {
    let ipv6 = any::<u128>().prop_map(Ipv6Addr::from_bits).prop_filter("mapped", |ip| ip.to_ipv4_mapped().is_none());
    prop_oneof![any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()), ipv6.prop_map(IpAddr::from)]
}

#[test]
fn listeners_may_stand_anywhere_in_their_group_and_probes_say_themselves_where_they_go() {
    for slots in [1, 2, 16, MAX_RENDEZVOUS, 100, 1024] {
        let steering = steering(slots, WHOLE);
        // All stand elsewhere: the longest program there can be.
        let place = |slot: Slot| (slots - slot.index()) as u32 + 7;
        let elsewhere: Vec<_> = (0..slots as u16).map(Slot).map(|slot| (slot, place(slot))).collect();
        let (moved, shifted) = (steering.program_to(1, &elsewhere, true), steering.program_to(1, &[], false));
        check(&moved);
        for ip in random_ipv4(3).into_iter().chain(random_ipv6_subnets(3)).step_by(500) {
            let (slot, mut packet) = (steering.slot_of(ip), packet(ip));
            assert_eq!(run(&moved, &packet), place(slot), "{ip}");
            assert_eq!(run(&shifted, &packet), u32::from(slot.0) + 1, "{ip}");
            let named = match ip {
                IpAddr::V4(ip) => {
                    packet[IPV4_TTL as usize] = 1;
                    ip.to_bits() % MARKS_IPV4
                }
                IpAddr::V6(_) => {
                    packet[IPV6_HOP_LIMIT as usize] = 1;
                    (packet[0], packet[1]) = (0x6a, 0x7f);
                    // 1010 0111 1111: the class is the first eight bits, of which six count.
                    0b10_1001
                }
            };
            assert_eq!(run(&moved, &packet), named, "{ip}");
            assert_eq!(run(&shifted, &packet), u32::from(slot.0) + 1, "{ip}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_program_computes_the_model(
        slots in prop_oneof![1..=16_usize, 17..=33_usize, 34..=1024_usize],
        prefix in prefixes(),
        bypassed in prop_oneof![Just(0), any::<u64>(), Just(u64::MAX - 2)],
        clients in prop::collection::vec(addresses(), 1..64),
    ) {
        let steering = steering_past(slots, prefix, |slot| bypassed >> (slot.0 % 64) & 1 == 1);
        let program = steering.program();
        check(&program);
        for ip in clients {
            prop_assert_eq!(run(&program, &packet(ip)), u32::from(steering.slot_of(ip).0), "{}", ip);
        }
    }
}

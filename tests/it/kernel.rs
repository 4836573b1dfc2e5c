//! The kernel chooses what the model says: on the loopback, and for IPv6 in a network of the test's own.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use haft::route::Prefix;
use haft::route::{MAX_RENDEZVOUS, Slot, Steering, Table};
use haft_sys::accept::{self, Accepted};
use haft_sys::addr::{EndAddr, ListenAddr};
use haft_sys::listen::Listener;
use haft_sys::reuseport::{self, BpfProgram};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

const WHOLE: Prefix = Prefix { ipv4: 32, ipv6: 128 };
/// Longer than any queue of these tests becomes.
const BACKLOG: u32 = 1024;
/// So many connect before they are accepted.
const AT_ONCE: usize = 200;

struct Group {
    steering: Steering,
    listeners: Vec<Listener>,
}

impl Group {
    fn new(addr: &str, slots: usize, prefix: Prefix) -> Self {
        let steering = Steering::new(slots, prefix).expect("slots");
        let listeners =
            reuseport::bind(&addr.parse().expect(addr), BACKLOG, slots, &program(&steering)).expect("a group");
        Self { steering, listeners }
    }

    /// Steers past these slots from now on.
    fn bypass(&mut self, bypassed: &[u16]) {
        let table = Table::new(self.listeners.len()).expect("slots");
        self.steering = Steering::among(table, WHOLE, |slot| bypassed.contains(&slot.0));
        program(&self.steering).attach(&self.listeners[0]).expect("attach");
    }

    fn port(&self) -> u16 {
        match self.listeners[0].addr() {
            ListenAddr::DualStack(port) => *port,
            ListenAddr::Ip(addr) => addr.port(),
            ListenAddr::Unix(_) => panic!("a Unix socket"),
        }
    }

    /// Connects from each source to `to`, and asserts that each came where the model says. Yields the slots that got any.
    fn assert_as_the_model(&self, to: IpAddr, sources: impl IntoIterator<Item = IpAddr>) -> BTreeSet<usize> {
        let sources: Vec<IpAddr> = sources.into_iter().collect();
        let mut used = BTreeSet::new();
        for some in sources.chunks(AT_ONCE) {
            let _clients: Vec<Socket> =
                some.iter().map(|from| connect(*from, SocketAddr::new(to, self.port()))).collect();
            let mut found = BTreeSet::new();
            for (slot, listener) in (0..).map(Slot).zip(&self.listeners) {
                while accept::waiting(listener.as_fd()) > Some(0) {
                    let accepted = accept::accept(listener.as_fd()).expect("accept");
                    let Accepted::Connection(_, EndAddr::Ip(client)) = accepted else { panic!("{accepted:?}") };
                    let model = self.steering.slot_of(client.ip());
                    assert_eq!(slot, model, "{} slots, {}", self.listeners.len(), client.ip());
                    found.insert(client.ip());
                    used.insert(slot.index());
                }
            }
            assert_eq!(found, some.iter().copied().collect(), "all came, from where they are");
        }
        used
    }
}

fn program(steering: &Steering) -> BpfProgram {
    BpfProgram::new(steering.program().into_iter().map(|it| (it.code, it.jt, it.jf, it.k)))
}

fn connect(from: IpAddr, to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
    // No port is kept after it.
    socket.set_linger(Some(Duration::ZERO)).expect("linger");
    socket.bind(&SocketAddr::new(from, 0).into()).expect("bind");
    socket.connect(&to.into()).expect("connect");
    socket
}

/// Addresses all over 127.0.0.0/8, each once.
fn loopback(count: u32) -> impl Iterator<Item = IpAddr> {
    // An odd factor reaches each of the 2^24 once.
    (1..=count).map(|n| Ipv4Addr::from_bits(127 << 24 | (n.wrapping_mul(0x9e37_79b1) & 0x00ff_ffff)).into())
}

fn all(slots: usize) -> BTreeSet<usize> {
    (0..slots).collect()
}

#[test]
fn three_thousand_ipv4_sources_go_where_the_model_says_for_1_to_16_slots() {
    assert_eq!(loopback(3000).collect::<BTreeSet<_>>().len(), 3000);
    for slots in 1..=16 {
        let group = Group::new("127.0.0.1:0", slots, WHOLE);
        let used = group.assert_as_the_model(Ipv4Addr::LOCALHOST.into(), loopback(3000));
        assert_eq!(used, all(slots));
    }
}

#[test]
fn many_slots_are_steered_to_with_the_longest_program_and_beyond_it() {
    for slots in [MAX_RENDEZVOUS, MAX_RENDEZVOUS + 1, 64] {
        let group = Group::new("127.0.0.1:0", slots, WHOLE);
        let used = group.assert_as_the_model(Ipv4Addr::LOCALHOST.into(), loopback(1500));
        assert_eq!(used, all(slots));
    }
}

#[test]
fn bypassed_slots_are_steered_past() {
    for slots in [3, 16, MAX_RENDEZVOUS, 64] {
        let mut group = Group::new("127.0.0.1:0", slots, WHOLE);
        for bypassed in [&[0, 1][..], &[slots as u16 - 1], &[]] {
            group.bypass(bypassed);
            let used = group.assert_as_the_model(Ipv4Addr::LOCALHOST.into(), loopback(1500));
            let rest = all(slots).into_iter().filter(|slot| !bypassed.contains(&(*slot as u16)));
            assert_eq!(used, rest.collect());
        }
    }
}

#[test]
fn a_dual_stack_listener_knows_ipv4_clients_by_their_ipv4_address() {
    for slots in [2, 5, 16] {
        let group = Group::new("0", slots, WHOLE);
        let used = group.assert_as_the_model(Ipv4Addr::LOCALHOST.into(), loopback(500));
        assert_eq!(used, all(slots));
        group.assert_as_the_model(Ipv6Addr::LOCALHOST.into(), [Ipv6Addr::LOCALHOST.into()]);
    }
}

#[test]
fn with_the_default_prefix_the_addresses_of_one_ipv6_network_share_a_slot() {
    let tried = in_a_network_of_ipv6(|| {
        for slots in [2, 7, 16, MAX_RENDEZVOUS + 1] {
            let group = Group::new("[::1]:0", slots, Prefix::default());
            let used: BTreeSet<usize> = documentation(100)
                .zip(1..)
                .flat_map(|(of_network, n)| {
                    let IpAddr::V6(network) = of_network else { panic!("an IPv4 address") };
                    let hosts = [0, 1, n, u128::from(u64::MAX) - n]
                        .map(|host| IpAddr::from(Ipv6Addr::from_bits(network.to_bits() >> 64 << 64 | host)));
                    let used = group.assert_as_the_model(Ipv6Addr::LOCALHOST.into(), hosts);
                    assert_eq!(used.len(), 1, "{slots} slots, {network}: {used:?}");
                    used
                })
                .collect();
            assert!(used.len() > 1, "{slots} slots: {used:?}");
        }
    });
    if let Err(why) = tried {
        println!("skipped: the IPv6 sources need a network of their own, which cannot be had here: {why}");
    }
}

#[test]
fn as_much_of_an_address_counts_as_the_prefix_says() {
    for ipv4 in [8, 12, 17, 24, 31, 0] {
        let group = Group::new("127.0.0.1:0", 7, Prefix { ipv4, ipv6: 64 });
        let used = group.assert_as_the_model(Ipv4Addr::LOCALHOST.into(), loopback(300));
        assert_eq!(used.len() == 1, ipv4 <= 8, "/{ipv4}: {used:?}");
    }
}

/// In a network namespace, in which this thread is alone, and where every address below 2001:db8::/32 is its own.
/// Otherwise says why not.
fn in_a_network_of_ipv6(test: impl FnOnce() + Send) -> Result<(), String> {
    let ip = |args: &str| {
        let output = Command::new("ip").args(args.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(format!("ip {args}: {said}")) }
    };
    thread::scope(|scope| {
        let alone = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| format!("a network namespace: {errno}"))?;
            ip("link set lo up")?;
            ip("-6 route add local 2001:db8::/32 dev lo")?;
            let allow = "/proc/sys/net/ipv6/ip_nonlocal_bind";
            fs::write(allow, "1").map_err(|error| format!("{allow}: {error}"))?;
            test();
            Ok(())
        });
        alone.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Networks and hosts in them, each address once.
fn documentation(count: u128) -> impl Iterator<Item = IpAddr> {
    let mixed = |n: u128| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    (1..=count).map(move |n| Ipv6Addr::from_bits(0x2001_0db8 << 96 | mixed(n) >> 32).into())
}

#[test]
fn two_hundred_ipv6_sources_go_where_the_model_says_for_1_to_16_slots() {
    let tried = in_a_network_of_ipv6(|| {
        assert_eq!(documentation(200).collect::<BTreeSet<_>>().len(), 200);
        for slots in 1..=16 {
            for (addr, prefix) in [("[::1]:0", WHOLE), ("0", Prefix { ipv4: 32, ipv6: 64 })] {
                let group = Group::new(addr, slots, prefix);
                let used = group.assert_as_the_model(Ipv6Addr::LOCALHOST.into(), documentation(200));
                assert_eq!(used, all(slots));
            }
        }
        for ipv6 in [0, 32, 33, 47, 65, 96, 127] {
            let group = Group::new("[::1]:0", 5, Prefix { ipv4: 32, ipv6 });
            let used = group.assert_as_the_model(Ipv6Addr::LOCALHOST.into(), documentation(100));
            assert_eq!(used.len() == 1, ipv6 <= 32, "/{ipv6}: {used:?}");
        }
    });
    if let Err(why) = tried {
        println!("skipped: the IPv6 sources need a network of their own, which cannot be had here: {why}");
    }
}

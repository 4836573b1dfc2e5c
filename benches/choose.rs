//! What it costs to choose a slot: from the client's address to the slot, by number of slots.
//!
//! `cargo bench --bench choose`. Each choice waits for the one before it (the next address depends on the slot), so
//! this is the time that one connection waits, not the throughput of overlapping choices. No address comes twice, so
//! the processor cannot learn what will be chosen.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use haft::route::Prefix;
use haft::route::{Key, RoundRobin, Slot, Table, least_loaded};

const WHOLE: Prefix = Prefix { ipv4: 32, ipv6: 128 };

fn ipv4(client: u32) -> IpAddr {
    Ipv4Addr::from_bits(client).into()
}

fn ipv6(client: u32) -> IpAddr {
    Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(client)).into()
}

/// Measures `choose`: address in, slot out.
fn measure(c: &mut Criterion, group: &str, address: impl Fn(u32) -> IpAddr, choose: impl Fn(&Table, Key) -> Slot) {
    let mut group = c.benchmark_group(group);
    for slots in [2, 4, 8, 16, 64] {
        let table = Table::new(slots).expect("a number of slots that is possible");
        group.bench_function(BenchmarkId::from_parameter(slots), |b| {
            let mut client = 0_u32;
            b.iter(|| {
                let slot = choose(black_box(&table), Key::of_ip(address(client), WHOLE));
                client = client.wrapping_add(1 + u32::from(slot.0));
                slot
            });
        });
    }
    group.finish();
}

fn sticky(c: &mut Criterion) {
    measure(c, "IPv4, slot of its own out of", ipv4, Table::choose);
    measure(c, "IPv6, slot of its own out of", ipv6, Table::choose);
    measure(c, "IPv4, next slot in order out of", ipv4, |table, key| {
        table.order(key).nth(1).expect("at least two slots")
    });
}

fn unsticky(c: &mut Criterion) {
    let table = Table::new(16).expect("a number of slots that is possible");
    let (loads, mut round_robin) = ([3; 16], RoundRobin::default());
    c.bench_function("least loaded out of/16", |b| {
        b.iter(|| {
            let loads = black_box(&loads);
            least_loaded(table.slots().map(|slot| (slot, loads[slot.index()])), &mut round_robin)
        });
    });
}

criterion_group!(benches, sticky, unsticky);
criterion_main!(benches);

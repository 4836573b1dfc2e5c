//! What the limits for clients cost a connection: one look into the table of buckets.
//!
//! `cargo bench --bench limits`. Each take waits for the one before it, and the addresses are more than the table has room
//! for, so that it is read from where memory is slowest.

use std::hint::black_box;
use std::net::Ipv6Addr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use haft::route::{Buckets, Source, TokenRate};

fn take(c: &mut Criterion) {
    let pace = TokenRate { count: 10, period: Duration::from_secs(1), burst: 50 };
    let mut group = c.benchmark_group("limit/take");
    for clients in [1_u32, 1_000, 100_000] {
        let mut buckets = Buckets::new(pace, 7);
        group.bench_function(BenchmarkId::from_parameter(clients), |b| {
            let (mut client, mut now) = (1_u32, 0_u64);
            b.iter(|| {
                let ip = Ipv6Addr::from_bits(u128::from(client % clients) << 64);
                let taken = buckets.take(Source::of(black_box(ip.into())), Duration::from_nanos(now), Duration::ZERO);
                now += 10_000;
                client = client.wrapping_mul(1_664_525).wrapping_add(1_013_904_223 + u32::from(taken.is_err()));
                taken
            });
        });
    }
    group.finish();
}

criterion_group!(benches, take);
criterion_main!(benches);

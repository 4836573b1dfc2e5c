//! The checks of the fuzzer's targets, each with many inputs that are the same in every run.

use std::fs;
use std::path::Path;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

#[path = "../../fuzz/checks/forwarded.rs"]
mod forwarded;
#[path = "../../fuzz/checks/proxy.rs"]
mod proxy;
#[path = "../../fuzz/checks/request.rs"]
mod request;
#[path = "../../fuzz/checks/source.rs"]
mod source;
#[path = "../../fuzz/checks/tag.rs"]
mod tag;

const INPUTS: u64 = 20_000;
/// Longest input that is made of nothing but chance.
const MAX_RANDOM: usize = 64;
/// What changes are drawn from, beside any byte.
const TELLING: &[u8] = b"\r\n\t \"\\,;:=?&#/.[]%_PROXYHTTP/1.1for0127";

/// An input: a seed with a few changes, or, every eighth time, chance alone.
fn input(rng: &mut TestRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let below = |rng: &mut TestRng, most: usize| rng.next_u32() as usize % most;
    let any = |rng: &mut TestRng| rng.next_u32() as u8;
    if below(rng, 8) == 0 {
        return (0..below(rng, MAX_RANDOM)).map(|_| any(rng)).collect();
    }
    let mut bytes = seeds[below(rng, seeds.len())].clone();
    for _ in 0..below(rng, 6) {
        let (at, end) = (below(rng, bytes.len() + 1), below(rng, bytes.len() + 1));
        match below(rng, 6) {
            0 if at < bytes.len() => bytes[at] = any(rng),
            1 if at < bytes.len() => bytes[at] = TELLING[below(rng, TELLING.len())],
            2 => bytes.insert(at, TELLING[below(rng, TELLING.len())]),
            3 => drop(bytes.drain(at.min(end)..at.max(end))),
            4 => bytes.truncate(at),
            _ => {
                let other = &seeds[below(rng, seeds.len())];
                bytes.splice(at..at, other[below(rng, other.len())..].iter().copied());
            }
        }
    }
    bytes
}

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).expect("seeds").map(|entry| entry.expect("a seed").path()).collect();
    paths.sort();
    let seeds: Vec<_> = paths.iter().map(|path| fs::read(path).expect("a seed")).collect();
    seeds.iter().for_each(|seed| check(seed));
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]);
    for number in 0..INPUTS {
        let input = input(&mut rng, &seeds);
        let shown = input.escape_ascii().to_string();
        let outcome = std::panic::catch_unwind(|| check(&input));
        assert!(outcome.is_ok(), "input {number}: {shown}");
    }
}

#[test]
fn any_proxy_header() {
    run("proxy", proxy::check);
}

#[test]
fn any_request() {
    run("request", request::check);
}

#[test]
fn any_forwarding_headers() {
    run("forwarded", forwarded::check);
}

#[test]
fn any_value_of_a_request() {
    run("source", source::check);
}

#[test]
fn any_tag() {
    run("tag", tag::check);
}

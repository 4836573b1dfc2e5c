//! Everything at once: clients, deaths, and somebody who reads the books all the time.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Load, Setup, Status, eventually, signal, slot_of};

const SLOTS: usize = 4;
const THREADS: u32 = 8;
const CLIENTS_OF_A_THREAD: u32 = 125;
const DEATHS: u64 = 8;

/// Asks until it is answered: a worker may die with a connection that it had taken. Yields how often it connected.
fn ask_until_answered(haft: &Haft, from: Ipv4Addr) -> u64 {
    for attempt in 1..=100 {
        let mut client = Client::connect_from(from, haft.address()).expect("connect");
        if let Ok(answer) = client.ask("/") {
            assert_eq!(answer.slot, slot_of(from, SLOTS), "{from}");
            return attempt;
        }
    }
    panic!("{from} is never answered");
}

#[test]
fn the_books_balance_whatever_happens_and_nobody_is_refused() {
    let mut haft = Setup::new(&["-w", "4", "--hold-timeout", "1h"]).start_all();
    let (connected, load) = (AtomicU64::new(0), Load::default());
    let deaths = thread::scope(|scope| {
        let until = load.until();
        let clients: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (haft, connected) = (&haft, &connected);
                scope.spawn(move || {
                    for n in 0..CLIENTS_OF_A_THREAD {
                        let address = Ipv4Addr::new(127, 0, 1, 1).to_bits() + thread * CLIENTS_OF_A_THREAD + n;
                        let attempts = ask_until_answered(haft, Ipv4Addr::from_bits(address));
                        connected.fetch_add(attempts, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let killer = scope.spawn(|| {
            // Each time so many more were delivered, the worker of the next slot dies. Each reading checks the books.
            let mut deaths = 0;
            eventually("enough deaths", || {
                let status = haft.status();
                let slot = deaths as usize % SLOTS;
                if deaths < DEATHS && status.delivered() >= (deaths + 1) * 100 && status.state(slot) == "ready" {
                    signal(status.pid(slot)?, Signal::SIGKILL);
                    deaths += 1;
                }
                (!load.goes_on()).then_some(())
            });
            deaths
        });
        let outcomes: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        until.over();
        outcomes.into_iter().for_each(|outcome| outcome.expect("a client"));
        killer.join().expect("the killer")
    });
    // On a busy machine the clients may be done before the last worker has died.
    assert!(deaths > 0, "nobody died");
    let respawned = |status: &Status| (0..SLOTS).map(|slot| status.of_slot(slot, "respawned")).sum::<u64>();
    let status = haft.wait("all are settled and replaced", |status| {
        status.in_flight() == 0 && status.all_ready() && respawned(status) >= deaths
    });
    assert_eq!(status.accepted(), connected.into_inner());
    assert_eq!((status.delivered(), status.refused_in_all()), (status.accepted(), 0));
    assert_eq!(respawned(&status), deaths);
    haft.stop();
}

//! A world of clients, workers and an operator that do as they please, for the whole of pool, routing and hand-over:
//! whatever happens, no connection is lost or served twice, and every slot is filled again.
//!
//! Everything follows from a seed; only the channels are real. `cargo test simulation` tries a thousand seeds.
//! `HAFT_SIM_SEEDS=50000` tries more, `HAFT_SIM_STEPS=10000` longer ones, and `HAFT_SIM_SEED=7` that one alone, which
//! is how a failure is replayed.

mod laws;
mod puppet;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use self::laws::{Laws, Totals};
use self::puppet::FakeWorker;
use super::*;
use crate::addr::EndAddr;
use crate::connection::{RejectReason, RouteBy};
use crate::dispatch::link::Link;
use crate::flags::{self, ParseOutcome};
use crate::handover::haft::MasterEnd;
use crate::route::Tag;

const TICK: Duration = Duration::from_millis(50);
/// More than all that a pool may wait for, one after another.
const LONG_ENOUGH: Duration = Duration::from_secs(90);

/// A generator of numbers that look random and follow from a seed (Steele et al., "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// The service and all that is outside of it.
struct World {
    dice: Dice,
    service: Service,
    now: Instant,
    puppets: BTreeMap<WorkerId, FakeWorker>,
    laws: Laws,
    /// Of which every client's socket is a copy: what is behind a descriptor does not matter here.
    nothing: File,
    /// A worker has sent something that was not read yet.
    unheard: Vec<WorkerId>,
    over: bool,
    /// Sessions stick: clients bring tags, and workers that are replaced linger.
    sessions: bool,
    /// What the workers run is broken: they die before they are ready.
    broken: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let workers = (1 + dice.below(4)).to_string();
        let most = (1 + dice.below(24)).to_string();
        let affinity = ["none", "ip", "ip", "session"][dice.below(4) as usize];
        let mut words = vec!["haft", "-w", &workers, "--max-in-flight", &most, "--affinity", affinity];
        if dice.one_in(2) {
            words.push("--hang-kill");
        }
        words.extend(["--", "true"]);
        let ParseOutcome::Run(config) = flags::parse_from(&words) else { panic!("{words:?}") };
        let now = Instant::now();
        let broken = dice.one_in(40);
        let mut world = Self {
            dice,
            sessions: affinity == "session",
            broken,
            service: Service::new(&config, now).expect("a service"),
            now,
            puppets: BTreeMap::new(),
            laws: Laws::new(&config),
            nothing: File::open("/dev/null").expect("/dev/null"),
            unheard: Vec::new(),
            over: false,
        };
        world.service.tick(now);
        world.perform();
        world
    }

    /// Does what the service wants done, as the master does.
    fn perform(&mut self) {
        while !self.over
            && let Some(effect) = self.service.next_effect()
        {
            let Effect::Act(action) = effect else { continue };
            self.laws.act(action, &self.puppets, self.service.time(self.now));
            match action {
                Action::Start { slot, worker, generation } => self.start(slot, worker, generation),
                Action::Terminate(worker) => self.puppet(worker).terminated = true,
                Action::Kill(worker) => self.puppet(worker).killed = true,
                Action::GiveUp(_) | Action::Finished => self.over = true,
                _ => {}
            }
        }
        self.laws.check(&self.service, self.now);
    }

    fn puppet(&mut self, worker: WorkerId) -> &mut FakeWorker {
        self.puppets.get_mut(&worker).expect("a living worker")
    }

    fn start(&mut self, slot: Slot, worker: WorkerId, generation: u32) {
        if self.dice.one_in(100) {
            // There was no memory for it, say.
            self.laws.exited(worker);
            self.service.exited(worker, self.now);
            return;
        }
        let (end, channel) = MasterEnd::pair().expect("a channel");
        if self.dice.one_in(3) {
            puppet::narrow(&end);
        }
        let since = self.service.time(self.now);
        // Programs may differ from one version to the next.
        let tags = self.sessions && !self.dice.one_in(8);
        self.puppets.insert(worker, FakeWorker::new(channel, since, tags));
        let mut link = Link::haft(worker, slot, end);
        link.generation = generation;
        self.service.dispatch.attach(link);
    }

    /// One of the living workers.
    fn any_worker(&mut self) -> Option<WorkerId> {
        let count = self.puppets.len() as u64;
        let nth = if count == 0 { return None } else { self.dice.below(count) };
        self.puppets.keys().nth(nth as usize).copied()
    }

    /// Clients come.
    fn arrive(&mut self) {
        for _ in 0..=self.dice.below(4) {
            let number = self.laws.admit();
            // Few hosts: so they meet.
            let host = Ipv4Addr::from_bits(0x7f00_0000 | self.dice.below(97) as u32);
            let client = EndAddr::Ip(SocketAddr::from((host, number)));
            let descriptor: OwnedFd = self.nothing.try_clone().expect("a descriptor").into();
            let key = self.service.dispatch.key(&client);
            let mut connection = ClientConnection::new(descriptor, 0, (client, EndAddr::Unix), key, self.now);
            if self.sessions {
                connection.goal = self.goal();
            }
            self.service.admit(connection, self.now);
        }
    }

    /// What a client asks for whose first request was seen; a tag may be of long ago.
    fn goal(&mut self) -> RouteBy {
        match self.dice.below(4) {
            0 => RouteBy::Address,
            1 => RouteBy::RecentSessions,
            _ => {
                let slot = Slot(self.dice.below(6) as u16);
                let newest = self.service.pool.newest();
                let generation = newest.saturating_sub(self.dice.below(4) as u32);
                RouteBy::Session(Tag { slot, generation })
            }
        }
    }

    /// A worker does something, if it can.
    fn work(&mut self, worker: WorkerId) {
        if self.broken {
            return self.die(worker);
        }
        let (dice, Some(puppet)) = (&mut self.dice, self.puppets.get_mut(&worker)) else { return };
        if puppet.stopped {
            return;
        }
        match dice.below(10) {
            0 if puppet.is_ready => puppet.give_back(dice.below(3)),
            1 if puppet.lingers && dice.one_in(4) => puppet.end_sessions(&mut self.laws),
            0..=6 if !puppet.is_ready => puppet.get_ready(1 + dice.below(30), dice.one_in(2)),
            0..=5 => puppet.receive(&mut self.laws),
            _ => {
                let most = 1 + dice.below(20);
                puppet.acknowledge(worker, most, &mut self.laws);
            }
        }
        self.unheard.push(worker);
    }

    fn die(&mut self, worker: WorkerId) {
        let Some(mut puppet) = self.puppets.remove(&worker) else { return };
        if self.dice.one_in(2) {
            // It has taken some and could not say so any more.
            puppet.receive(&mut self.laws);
        }
        if self.dice.one_in(2) {
            // Its last messages, which were not read yet.
            puppet.acknowledge(worker, 3, &mut self.laws);
        }
        drop(puppet);
        self.laws.exited(worker);
        self.laws.totals.add("deaths", 1);
        self.service.exited(worker, self.now);
    }

    /// Reads what was sent, in any order.
    fn listen(&mut self) {
        for worker in std::mem::take(&mut self.unheard) {
            self.service.read_channel(worker, self.now);
        }
        self.service.send(self.now);
    }

    /// Lets time pass as the master does, which looks at it once a tick if anything depends on it.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            let step = if self.service.depends_on_time() { TICK } else { time };
            self.now = (self.now + step).min(until);
            self.service.tick(self.now);
            self.perform();
        }
    }

    fn operate(&mut self) {
        let slots = self.service.pool.wanted();
        let slot = Slot(self.dice.below(slots as u64) as u16);
        let event = match self.dice.below(9) {
            0..=2 => {
                self.laws.reload();
                Event::Reload
            }
            3..=4 => Event::Scale(1 + self.dice.below(5) as usize),
            5 => Event::Drain(slot),
            6 => Event::Renew(slot),
            _ => Event::Undrain(slot),
        };
        self.laws.wanted(event);
        self.service.observe(event, self.now);
    }

    fn step(&mut self) {
        match self.dice.below(200) {
            0..=29 => self.arrive(),
            30..=159 => {
                if let Some(worker) = self.any_worker() {
                    self.work(worker);
                }
            }
            roll @ 160..=179 => {
                let most = if roll == 179 { 12_000 } else { 300 };
                let time = Duration::from_millis(self.dice.below(most));
                self.wait(time);
            }
            180 => {
                // The clock jumps: the master itself was stopped, or had no CPU.
                self.now += Duration::from_millis(self.dice.below(100_000_000));
                self.service.tick(self.now);
            }
            181..=183 => self.operate(),
            roll => {
                let Some(worker) = self.any_worker() else { return };
                match roll {
                    184 => self.puppet(worker).stopped = true,
                    185..=188 => self.puppet(worker).stopped = false,
                    189 => self.die(worker),
                    190 if self.dice.one_in(2) => {
                        self.puppet(worker).misbehave();
                        self.unheard.push(worker);
                    }
                    190 => {
                        self.puppet(worker).leaves = true;
                        self.service.observe(Event::Leaving(worker), self.now);
                    }
                    // Workers that were asked to leave do.
                    _ => self.go(),
                }
            }
        }
        if !self.dice.one_in(4) {
            self.listen();
        }
        self.perform();
    }

    /// All workers that were asked to end do.
    fn go(&mut self) {
        let gone = self.puppets.iter().filter(|(_, puppet)| puppet.killed || (puppet.terminated && !puppet.stopped));
        for worker in gone.map(|(worker, _)| *worker).collect::<Vec<_>>() {
            self.die(worker);
        }
        self.perform();
    }

    /// From now on all workers behave: then every slot must be filled, or all workers be gone, and no client waits.
    fn come_to_rest(&mut self) {
        let until = self.now + LONG_ENOUGH;
        while self.now < until && !self.over {
            self.wait(TICK);
            self.go();
            for worker in self.puppets.keys().copied().collect::<Vec<_>>() {
                let puppet = self.puppets.get_mut(&worker).expect("a living worker");
                puppet.stopped = false;
                if !puppet.is_ready && !puppet.leaves {
                    puppet.get_ready(1000, true);
                }
                puppet.receive(&mut self.laws);
                puppet.acknowledge(worker, u64::MAX, &mut self.laws);
                self.unheard.push(worker);
            }
            self.listen();
            self.perform();
        }
    }

    fn live(seed: u64, steps: u64) -> Totals {
        let mut world = Self::new(seed);
        for _ in 0..steps {
            if world.over {
                break;
            }
            world.step();
            world.laws.totals.add("steps", 1);
        }
        world.come_to_rest();
        if !world.over {
            assert_eq!(world.service.dispatch.in_flight(), 0);
            world.laws.at_rest(&world.service);
            world.laws.stop();
            world.service.observe(Event::Stop, world.now);
            world.perform();
            world.come_to_rest();
            assert!(world.over && world.puppets.is_empty(), "not finished: {:?}", world.puppets.keys());
        }
        // What is under way to a worker when a master gives up is that worker's.
        let under_way = world.service.dispatch.in_flight() as u64;
        world.service.dispatch.close(RejectReason::Stopping);
        world.laws.at_end(&world.service, under_way)
    }
}

#[test]
fn simulation_of_whatever_may_happen() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let steps = number("HAFT_SIM_STEPS").unwrap_or(2000);
    let seeds = match number("HAFT_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HAFT_SIM_SEEDS").unwrap_or(1000),
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let live = |seed| {
        let lived = std::panic::catch_unwind(|| World::live(seed, steps));
        lived.unwrap_or_else(|_| panic!("seed {seed} failed: HAFT_SIM_SEED={seed} cargo test simulation replays it"))
    };
    let totals = std::thread::scope(|scope| {
        let share = |thread| seeds.clone().filter(move |seed| seed % threads == thread);
        let threads: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || share(thread).map(live).sum::<Totals>())).collect();
        threads.into_iter().map(|thread| thread.join().expect("no seed fails")).sum::<Totals>()
    });
    println!("{totals:?}");
    if seeds.end - seeds.start >= 100 {
        totals.must_cover_everything();
    }
}

//! One contender's turn: what is measured of it, in which order.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::contender::{Contender, Programs, Running, Unstarted, Worker};
use crate::load::{self, Answers, Crowd};
use crate::process::{cpu, memory};
use crate::syscalls::Tool;
use crate::{Failure, Outcome};

/// Processes that use less than a twentieth of a CPU for a moment have nothing left to do.
const A_MOMENT: Duration = Duration::from_millis(20);
/// They are not waited for longer.
const TO_SETTLE: Duration = Duration::from_secs(3);

/// How much is asked of each contender in each round.
#[derive(Debug, Clone, Copy)]
pub struct Amounts {
    /// Before anything is measured; Node has to compile what is often run.
    pub warm_up: usize,
    /// Connections of 64 clients.
    pub connections: usize,
    /// Connections of one client.
    pub single: usize,
    /// Connections of 64 clients while system calls are counted.
    pub traced: usize,
    /// Connections that wait in the kernel's queue.
    pub waiting: usize,
    /// Sessions of Socket.IO.
    pub sessions: usize,
    /// WebSockets held.
    pub held: usize,
    /// How long 64 WebSockets are used.
    pub echo: Duration,
}

pub const FULL: Amounts = Amounts {
    warm_up: 3_000,
    connections: 10_000,
    single: 2_000,
    traced: 2_000,
    waiting: 4_000,
    sessions: 2_000,
    held: 9_000,
    echo: Duration::from_millis(1_500),
};

/// Shows that everything can be measured; the figures mean little.
pub const QUICK: Amounts = Amounts {
    warm_up: 100,
    connections: 400,
    single: 50,
    traced: 100,
    waiting: 200,
    sessions: 100,
    held: 200,
    echo: Duration::from_millis(100),
};

/// What came of a turn, by the names that the report knows. What a contender does not have is absent.
pub type Figures = BTreeMap<&'static str, f64>;

/// Measures one contender once.
pub fn turn(
    contender: &Contender,
    programs: &Programs,
    tool: Option<Tool>,
    amounts: &Amounts,
    (crowd, workers): (Crowd, usize),
) -> Result<Figures, Unstarted> {
    let running = contender.start(programs, workers)?;
    let turn = Turn { running: &running, crowd, figures: Figures::new() };
    turn.run(amounts, contender.workers(workers), contender.worker, tool)
        .map_err(|error| Unstarted::Failed(format!("{error}; it said: {}", running.said()).into()))
}

struct Turn<'a> {
    running: &'a Running,
    crowd: Crowd,
    figures: Figures,
}

impl Turn<'_> {
    fn run(mut self, amounts: &Amounts, workers: usize, worker: Worker, tool: Option<Tool>) -> Outcome<Figures> {
        // Processes of Node and the like are warm later than others.
        let warm_up = if worker.is_compiled_late() { amounts.warm_up } else { amounts.warm_up / 2 };
        let target = &self.running.target;
        load::requests(target, self.crowd, warm_up).map_err(during("warm-up"))?;

        let work = || load::requests(target, self.crowd, amounts.connections).map_err(during("load"));
        let (mut answers, [balancer, serving]) = self.with_cpu(work)?;
        self.tell_load(["rate", "p50_us", "p99_us", "balancer_us", "workers_us"], &mut answers, balancer, serving);
        let work = || load::requests_one_by_one(target, amounts.single).map_err(during("one client"));
        let (mut answers, [balancer, serving]) = self.with_cpu(work)?;
        let names = ["rate_1", "p50_1_us", "p99_1_us", "balancer_1_us", "workers_1_us"];
        self.tell_load(names, &mut answers, balancer, serving);

        if worker != Worker::Minimal {
            self.sessions(amounts.sessions).map_err(during("sessions"))?;
        }
        self.syscalls(amounts.traced, tool).map_err(during("counting of system calls"))?;
        self.echo(amounts.echo, workers).map_err(during("echo"))?;
        self.memory(amounts.held).map_err(during("held WebSockets"))?;
        self.waiting(amounts.waiting).map_err(during("waiting connections"))?;
        Ok(self.figures)
    }

    /// Handshake, upgrade, one message, the end; the minimal worker has no sessions.
    fn sessions(&mut self, count: usize) -> Outcome<()> {
        let ((mut answers, lost), [balancer, serving]) =
            self.with_cpu(|| load::sessions(&self.running.target, self.crowd, count))?;
        self.tell("session_rate", answers.per_second());
        self.tell("session_p50_us", answers.within(0.5));
        if !self.running.balancer.is_empty() {
            self.tell("session_balancer_us", balancer / count as f64);
        }
        self.tell("session_workers_us", serving / count as f64);
        self.tell("session_lost", lost as f64);
        Ok(())
    }

    fn syscalls(&mut self, connections: usize, tool: Option<Tool>) -> Outcome<()> {
        let Running { target, balancer, folder, .. } = self.running;
        let Some(tool) = tool.filter(|_| !balancer.is_empty()) else { return Ok(()) };
        let work = || load::requests(target, self.crowd, connections).map(drop);
        let calls = tool.count(folder.path(), balancer, work)?;
        self.tell("syscalls", calls as f64 / connections as f64);
        Ok(())
    }

    fn memory(&mut self, held: usize) -> Outcome<()> {
        if self.running.balancer.is_empty() {
            return Ok(());
        }
        self.settle()?;
        let before = memory(&self.running.balancer)?;
        let (sockets, lost) = load::hold(&self.running.target, self.crowd.threads, held)?;
        let during = memory(&self.running.balancer)?;
        let open = sockets.iter().filter(|socket| socket.is_open()).count();
        if open < held {
            return Err(format!("of {held} WebSockets {open} stayed open").into());
        }
        self.tell("rss_kib", before.rss as f64);
        self.tell("pss_kib", before.pss as f64);
        self.tell("rss_held_kib", during.rss as f64);
        self.tell("pss_held_kib", during.pss as f64);
        self.tell("held", held as f64);
        self.tell("held_lost", lost as f64);
        Ok(())
    }

    fn echo(&mut self, duration: Duration, workers: usize) -> Outcome<()> {
        let sockets = load::seat(&self.running.target, self.crowd, workers)?;
        let (mut answers, [balancer, _]) = self.with_cpu(|| load::echo(sockets, self.crowd.threads, duration))?;
        self.tell("echo_rate", answers.per_second());
        self.tell("echo_p50_us", answers.within(0.5));
        self.tell("echo_p99_us", answers.within(0.99));
        if !self.running.balancer.is_empty() {
            self.tell("echo_balancer_us", balancer / answers.times.len() as f64);
        }
        Ok(())
    }

    fn waiting(&mut self, most: usize) -> Outcome<()> {
        // The queue may hold one more than it is said to; a full one would make clients wait for a second.
        let count = most.min(self.running.queue - 11);
        let Running { target, accepting, balancer, workers, .. } = self.running;
        let all = || Ok([cpu(balancer)?, cpu(workers)?]);
        self.settle()?;
        let (before, lost) = load::requests_waiting(target, accepting, count, all)?;
        let spent: Vec<_> =
            all()?.into_iter().zip(before).map(|(now, then)| micros(now - then) / count as f64).collect();
        self.tell("waiting", count as f64);
        self.tell("waiting_lost", lost as f64);
        if !balancer.is_empty() {
            self.tell("waiting_balancer_us", spent[0]);
        }
        self.tell("waiting_workers_us", spent[1]);
        Ok(())
    }

    /// What the work gave, and the microseconds that the balancer and the workers were on a CPU for it.
    fn with_cpu<T>(&self, work: impl FnOnce() -> Outcome<T>) -> Outcome<(T, [f64; 2])> {
        let all = || Ok::<_, Failure>([cpu(&self.running.balancer)?, cpu(&self.running.workers)?]);
        self.settle()?;
        let before = all()?;
        let result = work()?;
        let after = all()?;
        Ok((result, [micros(after[0] - before[0]), micros(after[1] - before[1])]))
    }

    /// Waits until nothing of what was before is still being worked off, or for long enough.
    fn settle(&self) -> Outcome<()> {
        let all = [&self.running.balancer[..], &self.running.workers[..]].concat();
        let mut last = cpu(&all)?;
        let end = Instant::now() + TO_SETTLE;
        while Instant::now() < end {
            thread::sleep(A_MOMENT);
            let now = cpu(&all)?;
            if u128::from(now - last) < A_MOMENT.as_nanos() / 20 {
                break;
            }
            last = now;
        }
        Ok(())
    }

    fn tell_load(&mut self, names: [&'static str; 5], answers: &mut Answers, balancer: f64, workers: f64) {
        let [rate, p50, p99, balancer_name, workers_name] = names;
        self.tell(rate, answers.per_second());
        self.tell(p50, answers.within(0.5));
        self.tell(p99, answers.within(0.99));
        if !self.running.balancer.is_empty() {
            self.tell(balancer_name, balancer / answers.times.len() as f64);
        }
        self.tell(workers_name, workers / answers.times.len() as f64);
    }

    fn tell(&mut self, name: &'static str, figure: f64) {
        self.figures.insert(name, figure);
    }
}

/// Says in which part something failed.
fn during(part: &str) -> impl Fn(Failure) -> Failure {
    move |error| format!("{part}: {error}").into()
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

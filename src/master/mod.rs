//! The master: the only loop that waits. It accepts, assigns, hands over and supervises, and keeps nothing of a
//! connection once its worker has taken it.
//!
//! Everything runs in one thread, so that each decision is taken on one consistent state. Nothing here reads a byte of
//! a client's.

mod boot;
mod connection;
mod dispatch;
mod doors;
mod error;
mod ledger;
mod link;
mod node;
mod plan;
mod queue;
mod report;
mod stopping;
mod supervise;

pub use self::boot::main;
pub use self::error::MasterError;

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use self::connection::{Connection, Refusal};
use self::dispatch::Dispatch;
use self::doors::{Arrival, Doors};
use self::error::While;
use self::link::News;
use self::node::NodeDesk;
use self::plan::Plan;
use self::supervise::Supervisor;
use crate::admin::{self, AdminListener, ControlRequest};
use crate::config::{Config, DESCRIPTORS_PER_WORKER};
use crate::lifecycle::crew::Exit;
use crate::lifecycle::pool::{Event, WorkerId};
use crate::route::Slot;
use crate::sys::listen::{Access, Listener, SocketFile};
use crate::sys::poller::{Poller, Ready};

/// How often time is looked at while something depends on it.
const TICK: Duration = Duration::from_millis(50);
/// Descriptors that the master needs for itself and for starting workers.
const DESCRIPTOR_RESERVE: u64 = 64;
/// How long, in milliseconds, the next event is waited for where one has just come.
const MOMENT_MS: u8 = 1;
/// How long to let connections and acknowledgements gather where more than one came together; the kernel's timer adds
/// about 50 us.
const COALESCE: Duration = Duration::from_micros(100);
/// How long turn may follow turn before signals, deaths and questions are looked at.
const LONGEST_ABSENCE: Duration = Duration::from_millis(5);
/// Tokens from here on are workers, below are listeners.
const FIRST_WORKER_TOKEN: u64 = 1 << 32;

/// How far the master's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No worker has been ready yet: clients wait in the kernel's queue.
    Starting,
    /// Connections are accepted.
    Serving,
    /// The listeners are closed; what was accepted before is still handed over, until the instant.
    Flushing(Instant),
    /// The workers finish.
    Stopping,
}

/// The master's state.
struct Master {
    poller: Poller,
    doors: Doors,
    dispatch: Dispatch,
    supervisor: Supervisor,
    phase: Phase,
    budget: u64,
    over_budget: bool,
    hold_timeout: Duration,
    drain_timeout: Duration,
    /// Slots whose queue or worker has changed in this turn.
    dirty: Vec<Slot>,
    /// What a worker has just told.
    news: Vec<News>,
    about: report::About,
    /// The admin listener's file, if it is a Unix socket.
    _admin_file: Option<SocketFile>,
}

/// Runs the master until it is told to stop. Must be called within a `LocalSet` of a single-threaded runtime.
///
/// `descriptor_limit` is this process's limit on descriptors (RLIMIT_NOFILE).
pub async fn run(config: Config, descriptor_limit: u64) -> Result<(), MasterError> {
    // Before anybody is told that we listen: who reads that may send a signal at once.
    let signals = Signals::listen()?;
    let (control, requests) = admin::channel();
    let (mut master, exits) = Master::new(&config, descriptor_limit, control)?;
    let outcome = master.run(signals, exits, requests).await;
    // However it ends.
    master.dispatch.close(Refusal::Stopping);
    if outcome.is_ok() {
        tracing::info!("stopped: {}", master.summary());
    }
    outcome
}

/// How the operator tells the master to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, MasterError> {
        let listen = |kind| signal(kind).doing("preparing for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }
}

impl Master {
    fn new(
        config: &Config,
        descriptor_limit: u64,
        control: admin::Control,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Exit>), MasterError> {
        let plan = Plan::new(config)?;
        let listeners = plan
            .listen
            .iter()
            .map(|addr| Listener::bind(addr, config.backlog, Access::Umask))
            .collect::<Result<Vec<_>, _>>()?;
        let admin_file = match &config.admin {
            Some(addr) => serve_admin(Listener::bind(addr, 128, Access::OwnerOnly)?, control)?,
            None => None,
        };
        for listener in &listeners {
            tracing::info!("listening on {}", listener.addr());
        }
        let about = report::About::new(config, descriptor_limit);
        let mut dispatch = Dispatch::new(config)?;
        dispatch.node = plan.node.clone().map(|node| NodeDesk::new(node, &listeners));
        let (supervisor, exits) = Supervisor::new(config, plan);
        let master = Self {
            poller: Poller::new(256).doing("making an epoll set")?,
            doors: Doors::new(listeners, config.hold_timeout).doing("opening /dev/null")?,
            dispatch,
            supervisor,
            phase: Phase::Starting,
            budget: descriptor_limit
                .saturating_sub(DESCRIPTOR_RESERVE + DESCRIPTORS_PER_WORKER * config.workers as u64)
                .max(1),
            over_budget: false,
            hold_timeout: config.hold_timeout,
            drain_timeout: config.drain_timeout,
            dirty: Vec::new(),
            news: Vec::new(),
            about,
            _admin_file: admin_file,
        };
        Ok((master, exits))
    }

    async fn run(
        &mut self,
        mut signals: Signals,
        mut exits: mpsc::UnboundedReceiver<Exit>,
        mut requests: mpsc::Receiver<ControlRequest>,
    ) -> Result<(), MasterError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ready = Vec::new();
        self.observe(Event::Tick)?;
        while !self.supervisor.is_finished() {
            tokio::select! {
                waited = self.poller.wait(&mut ready) => {
                    waited.doing("waiting for connections")?;
                    self.turns(&mut ready)?;
                }
                Some(exit) = exits.recv() => self.exited(&exit)?,
                Some(request) = requests.recv() => self.answer(request),
                _ = ticks.tick(), if self.depends_on_time() => self.tick()?,
                _ = signals.terminate.recv() => self.stop("SIGTERM")?,
                _ = signals.interrupt.recv() => self.stop("SIGINT")?,
            }
        }
        Ok(())
    }

    /// Turns until nothing has been ready for a moment, but not so long that signals, deaths and questions are kept
    /// waiting. Where one event has come the next is near, and waiting for it here is far cheaper than to leave and come
    /// back through the event loop, whose other work can wait that moment.
    fn turns(&mut self, ready: &mut Vec<Ready>) -> Result<(), MasterError> {
        let until = Instant::now() + LONGEST_ABSENCE;
        loop {
            let before = self.dispatch.ledger.events();
            self.turn(ready)?;
            if self.dispatch.ledger.events() - before > 1 {
                // More will come together if they are given time to: one turn for many is what makes each cheap.
                std::thread::sleep(COALESCE);
            }
            if !self.poller.look(MOMENT_MS, ready).doing("waiting for connections")? || Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// One turn: takes in what workers said, then what clients want, then sends to each worker once.
    fn turn(&mut self, ready: &[Ready]) -> Result<(), MasterError> {
        for event in ready.iter().filter(|event| event.token >= FIRST_WORKER_TOKEN) {
            self.hear(WorkerId(event.token - FIRST_WORKER_TOKEN))?;
        }
        for event in ready.iter().filter(|event| event.token < FIRST_WORKER_TOKEN) {
            if self.doors.is_open() {
                self.accept(event.token)?;
            }
        }
        self.send_dirty()?;
        self.keep_budget()
    }

    /// Takes in what a worker said.
    fn hear(&mut self, worker: WorkerId) -> Result<(), MasterError> {
        let mut news = std::mem::take(&mut self.news);
        let heard = self.dispatch.receive(worker, &mut news, Instant::now());
        for news in news.drain(..) {
            match news {
                News::Ready => self.observe(Event::Ready(worker))?,
                News::Leaving => self.observe(Event::Leaving(worker))?,
                News::Left => self.left(worker)?,
            }
        }
        self.news = news;
        let Some((slot, heard)) = heard else { return Ok(()) };
        self.mark(slot);
        match heard {
            Ok(_) => Ok(()),
            Err(error) => self.mistrust(worker, slot, &error),
        }
    }

    fn accept(&mut self, token: u64) -> Result<(), MasterError> {
        let now = Instant::now();
        let (dispatch, dirty) = (&mut self.dispatch, &mut self.dirty);
        let most = self.budget.saturating_sub(dispatch.ledger.outstanding());
        let turn = self.doors.accept(token, usize::try_from(most).unwrap_or(usize::MAX), &self.poller, |arrival| {
            if let Some(slot) = admit(dispatch, arrival, now)
                && !dirty.contains(&slot)
            {
                dirty.push(slot);
            }
        });
        let turn = turn.doing("accepting connections")?;
        self.dispatch.ledger.aborted += turn.aborted;
        self.dispatch.ledger.exhausted += u64::from(turn.exhausted);
        Ok(())
    }

    /// Sends what waits for the slots that have changed, and what waits for the workers' kernels.
    fn send_dirty(&mut self) -> Result<(), MasterError> {
        while let Some(slot) = self.dirty.pop() {
            if let Some((worker, error)) = self.dispatch.send(slot, Instant::now()) {
                self.mistrust(worker, slot, &error)?;
            }
        }
        for (worker, slot, error) in self.dispatch.flush() {
            self.mistrust(worker, slot, &error)?;
        }
        for link in self.dispatch.links_mut() {
            let interest = link.wanted_interest();
            if interest != link.interest && !link.has_ended() {
                self.poller.change(&*link, token(link.worker), interest).doing("waiting for a worker")?;
                link.interest = interest;
            }
        }
        self.refresh_doors()
    }

    /// Opens and closes the listeners that programs have asked for.
    fn refresh_doors(&mut self) -> Result<(), MasterError> {
        let Some(desk) = &mut self.dispatch.node else { return Ok(()) };
        for listener in desk.take_fresh() {
            tracing::info!("listening on {}", listener.addr());
            self.doors.add(listener, &self.poller).doing("waiting for connections")?;
        }
        for number in desk.take_closing() {
            self.doors.remove(number, &self.poller).doing("closing a listener")?;
        }
        Ok(())
    }

    /// A worker has closed its channel: it can be given nothing any more, and its process will end.
    fn left(&mut self, worker: WorkerId) -> Result<(), MasterError> {
        if let Some(link) = self.dispatch.link(worker) {
            self.poller.remove(&*link).ok();
            link.end();
        }
        self.observe(Event::Left(worker))
    }

    /// Stops accepting while as many connections are held as there are descriptors for.
    fn keep_budget(&mut self) -> Result<(), MasterError> {
        let outstanding = self.dispatch.ledger.outstanding();
        if self.over_budget {
            if outstanding <= self.budget / 4 * 3 {
                self.over_budget = false;
                self.open_doors()?;
            }
        } else if outstanding >= self.budget && self.doors.is_open() {
            tracing::warn!(outstanding, "as many connections wait as there are descriptors for: accepting pauses");
            self.over_budget = true;
            self.doors.shut(&self.poller).doing("leaving the listeners alone")?;
        }
        Ok(())
    }

    fn open_doors(&mut self) -> Result<(), MasterError> {
        if self.phase == Phase::Serving && !self.over_budget && !self.doors.is_paused() {
            self.doors.open(&self.poller).doing("waiting for connections")?;
        }
        Ok(())
    }

    fn mark(&mut self, slot: Slot) {
        if !self.dirty.contains(&slot) {
            self.dirty.push(slot);
        }
    }

    /// Whether something happens without an event.
    fn depends_on_time(&self) -> bool {
        !self.supervisor.is_settled()
            || self.doors.is_paused()
            || self.dispatch.held() > 0
            || self.dispatch.must_retry()
            || matches!(self.phase, Phase::Flushing(_))
    }

    fn tick(&mut self) -> Result<(), MasterError> {
        let now = Instant::now();
        if self.doors.is_paused() {
            let dispatch = &mut self.dispatch;
            let resumed = self.doors.resume(now, &self.poller, |arrival| {
                let connection = connection(dispatch, arrival, now);
                dispatch.ledger.accept();
                dispatch.ledger.refuse(connection, Refusal::NoDescriptor);
            });
            resumed.doing("accepting connections")?;
        }
        for worker in self.dispatch.ready_by_silence(now) {
            self.observe(Event::Ready(worker))?;
        }
        for slot in self.dispatch.expire(now) {
            self.mark(slot);
        }
        if self.dispatch.must_retry() {
            self.dirty = self.dispatch.slots().collect();
        }
        self.send_dirty()?;
        self.keep_budget()?;
        self.observe(Event::Tick)?;
        self.stop_when_flushed(now)
    }
}

/// A worker's token in the poller.
fn token(worker: WorkerId) -> u64 {
    FIRST_WORKER_TOKEN + worker.0
}

fn connection(dispatch: &Dispatch, arrival: Arrival, now: Instant) -> Connection {
    let Arrival { descriptor, listener, client, local } = arrival;
    Connection::new(descriptor, listener, (client, local), dispatch.key(&client), now)
}

fn admit(dispatch: &mut Dispatch, arrival: Arrival, now: Instant) -> Option<Slot> {
    let connection = connection(dispatch, arrival, now);
    dispatch.admit(connection)
}

/// Serves metrics and status beside the master.
fn serve_admin(listener: Listener, control: admin::Control) -> Result<Option<SocketFile>, MasterError> {
    tracing::info!("metrics and status on {}", listener.addr());
    let is_unix = matches!(listener.addr(), crate::addr::ListenAddr::Unix(_));
    let (socket, file) = listener.into_parts();
    let listener =
        if is_unix { AdminListener::from_unix(socket.into()) } else { AdminListener::from_tcp(socket.into()) };
    tokio::task::spawn_local(admin::serve(listener.doing("preparing the admin listener")?, control));
    Ok(file)
}

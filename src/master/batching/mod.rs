//! Batching: what came together is handed over together, and nothing is woken for less than needed.
//!
//! To be woken, with cold caches, is most of what a turn costs; one turn for many connections costs hardly more than
//! for one. So after each turn the loop decides how to wait for the next ([`Wait`]):
//!
//! ```text
//! an event   turn     Gather: more come together  turn   Sleep, or Spin with --busy-poll      the event loop
//! ─────┬──▶ [====] ──── 60 to 140 us, up to ────▶ [====] ─── at most 1 ms for the next ──▶ … ──▶ sleeps until
//!      │              1.5 ms while all workers                                    │          the next event
//!      │              have connections to take                                    │
//!      └───────────────── MAX_TURN: 5 ms, then signals, deaths and questions have their turn ─┘
//! ```
//!
//! While connections come close together, workers far from their limit are not waited for ([`channels`]): what they say
//! is read every [`LAZY_POLL_INTERVAL`]. `timer` decides how long to gather, from how fast connections come; each link
//! decides for how long its worker is busy anyway.

pub(super) mod channels;
mod timer;

use std::time::{Duration, Instant};

use self::channels::Channels;
use self::timer::BatchTimer;
use super::error::Context;
use super::{Master, MasterError};
use crate::listen::kernel::FIRST_GROUP_TOKEN;
use crate::pending as peeking;
use crate::sys::poller::{self, Poller, Ready};

/// How long, in milliseconds, the next event is waited for where one has just come.
const MOMENT_MS: u8 = 1;
/// How long a worker that is not waited for goes unheard at most.
const LAZY_POLL_INTERVAL: Duration = Duration::from_millis(1);
/// How long turn may follow turn before signals, deaths and questions are looked at.
const MAX_TURN: Duration = Duration::from_millis(5);

/// How the next events are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Asleep, for a moment at most: the next event wakes.
    Sleep,
    /// Awake, until then at most: nothing has to be woken (`--busy-poll`).
    Spin(Instant),
    /// Not looking for so long, so that more come together. Then as it would have been without.
    Gather(Duration),
}

/// What batching remembers from turn to turn.
#[derive(Debug)]
pub(super) struct Batching {
    pub channels: Channels,
    /// Some channels are polled lazily.
    pub busy: bool,
    /// When the last connection came, and how fast they come.
    last_accept: Instant,
    timer: BatchTimer,
    /// Until when there is no sleeping between turns (`--busy-poll`).
    awake_until: Instant,
}

impl Batching {
    /// No connection has come.
    pub(super) fn new(poller: &Poller) -> std::io::Result<Self> {
        let now = Instant::now();
        let (channels, timer) = (Channels::new(poller)?, BatchTimer::new(now));
        Ok(Self { channels, busy: false, last_accept: now, timer, awake_until: now })
    }

    /// So many connections were accepted in one turn.
    fn accepted(&mut self, count: u64, busy_poll: Duration, now: Instant) {
        self.busy |= now < self.last_accept + LAZY_POLL_INTERVAL;
        self.last_accept = now;
        self.awake_until = now + busy_poll;
        self.timer.came(count, now);
    }

    /// How to wait where nothing is to be gathered.
    fn idle(&self, now: Instant) -> Wait {
        if now < self.awake_until { Wait::Spin(self.awake_until) } else { Wait::Sleep }
    }
}

impl Master {
    /// Turns until nothing has been ready for a moment, but not so long that signals, deaths and questions are kept
    /// waiting. After one event the next is near, and waiting for it here is far cheaper than a pass through the event
    /// loop, whose other work can wait that long.
    pub(super) fn turns(&mut self, ready: &mut Vec<Ready>) -> Result<(), MasterError> {
        let mut heard = Instant::now();
        let until = heard + MAX_TURN;
        loop {
            if let gather @ Wait::Gather(_) = self.turn(ready)? {
                self.wait(gather, until, ready)?;
            }
            // What a poll returns must be handled, since some of it is not reported a second time.
            let now = Instant::now();
            let is_over = now >= until;
            let more = !is_over && self.wait(self.batching.idle(now), until, ready)?;
            let (now, before) = (Instant::now(), self.service.dispatch.ledger.events());
            // The eagerly polled channels were read with the other events.
            if self.batching.busy && (!more || now >= heard + LAZY_POLL_INTERVAL) {
                self.poll_lazy(now)?;
                heard = now;
            }
            let silent = !is_over && !more && self.service.dispatch.ledger.events() == before;
            if silent || is_over {
                self.batching.busy &= !silent && self.service.dispatch.is_owed_words();
                self.batching.busy |= now < self.batching.awake_until || self.intake.awaits_closing();
                self.service.send(now);
                return self.perform();
            }
        }
    }

    /// Waits for the next events, `until` then at most. Returns whether there are any in `ready`.
    fn wait(&mut self, mut wait: Wait, until: Instant, ready: &mut Vec<Ready>) -> Result<bool, MasterError> {
        loop {
            let patience = match wait {
                Wait::Gather(pause) => {
                    poller::gather(pause).context("letting connections gather")?;
                    return Ok(false);
                }
                Wait::Spin(_) => 0,
                Wait::Sleep => MOMENT_MS,
            };
            let found = self.poller.look(patience, ready).context("waiting for connections")?;
            let now = Instant::now();
            if found || wait == Wait::Sleep || now >= until {
                return Ok(found);
            }
            wait = self.batching.idle(now);
        }
    }

    /// One turn. Yields how to wait for the next: more come together in a pause, and one turn for many is what makes
    /// each cheap.
    fn turn(&mut self, ready: &[Ready]) -> Result<Wait, MasterError> {
        let ledger = &self.service.dispatch.ledger;
        let (events, accepted) = (ledger.events(), ledger.accepted());
        self.take_turn(ready)?;
        let ledger = &self.service.dispatch.ledger;
        let (events, accepted) = (ledger.events() - events, ledger.accepted() - accepted);
        let now = Instant::now();
        let mut pause = if events > 1 { timer::LONGEST } else { Duration::ZERO };
        if accepted > 0 {
            self.batching.accepted(accepted, self.reloads.config.busy_poll, now);
        }
        let dispatch = &self.service.dispatch;
        if dispatch.node.is_some() && (accepted > 0 || dispatch.held() > 0) {
            pause = pause.max(self.gathering()?);
        }
        Ok(if pause.is_zero() { self.batching.idle(now) } else { Wait::Gather(pause) })
    }

    /// How long to let connections gather for workers of Node, which take them one by one; or, where connections wait
    /// for room already, the acknowledgements that make it.
    fn gathering(&mut self) -> Result<Duration, MasterError> {
        if self.service.dispatch.busy_for() > timer::LONGEST {
            // It counts what they have not taken yet.
            self.poll_lazy(Instant::now())?;
        }
        let busy = self.service.dispatch.busy_for();
        Ok(match self.service.dispatch.held() {
            0 => self.batching.timer.pause(busy).unwrap_or_default(),
            _ => timer::unnoticed(busy),
        })
    }

    /// Reads the lazily polled channels.
    fn poll_lazy(&mut self, now: Instant) -> Result<(), MasterError> {
        for worker in self.batching.channels.look().context("waiting for a worker")? {
            self.service.read_channel(worker, now);
        }
        self.service.dispatch.ledger.close_delivered();
        Ok(())
    }

    /// One turn: reads the workers' channels, then takes in clients, then sends to each worker once.
    fn take_turn(&mut self, ready: &[Ready]) -> Result<(), MasterError> {
        let now = Instant::now();
        let worker_of = |event: &Ready| channels::worker_of(event.token);
        for worker in ready.iter().filter_map(worker_of) {
            self.service.read_channel(worker, now);
        }
        if ready.iter().any(|event| event.token == channels::TOKEN) {
            self.poll_lazy(now)?;
        }
        if ready.iter().any(|event| event.token != channels::TOKEN && worker_of(event).is_none()) {
            self.service.read_namers(now);
        }
        self.intake.settle_named(&mut self.service, now);
        for event in ready.iter().filter(|event| event.token >= peeking::FIRST_TOKEN) {
            self.intake.peek(*event, &mut self.service, &self.poller, now);
        }
        for event in ready.iter().filter(|event| event.token < channels::TOKEN) {
            if self.intake.doors.is_open() {
                self.read_loads(now);
                self.intake.accept(event.token, &mut self.service, &self.poller)?;
            }
        }
        for event in ready.iter().filter(|event| (FIRST_GROUP_TOKEN..peeking::FIRST_TOKEN).contains(&event.token)) {
            self.queues.rescue(event.token, &mut self.service, (&self.intake, &self.poller))?;
        }
        self.service.send(now);
        self.perform()?;
        self.keep_budget()
    }
}

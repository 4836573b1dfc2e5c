//! The counters from which alarms are found, and telling the operator. Every few seconds, never for a connection.

use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::report::MasterView;
use crate::admin::figures;
use crate::alarms::{Alarms, LOOK_EVERY, Sample, SlotSample};
use crate::config::DispatchBy;
use crate::listen::kernel::Kernel;
use crate::pool::Availability;
use crate::route::Slot;
use crate::sys::accept;
use crate::sys::descriptors;
use haft_worker::protocol::scoreboard::{Field, Figures};

/// A worker writes its page once a second: what is older than this is late by the rest.
const FRESH: Duration = Duration::from_secs(2);

/// By how much faster the alarms' clock goes, for tests: those cannot wait for minutes.
const SPEED: &str = "HAFT_TEST_ALARM_SPEED";

/// The clock by which alarms are judged.
#[derive(Debug)]
struct Clock {
    begun: Instant,
    speed: u32,
}

impl Clock {
    /// It goes from now on.
    fn new() -> Self {
        let speed = std::env::var(SPEED).ok().and_then(|speed| speed.parse().ok());
        Self { begun: Instant::now(), speed: speed.unwrap_or(1).max(1) }
    }

    /// What it shows at this time.
    fn at(&self, now: Instant) -> Instant {
        self.begun + now.saturating_duration_since(self.begun) * self.speed
    }

    /// When samples are taken.
    fn looks(&self) -> Interval {
        let every = LOOK_EVERY / self.speed;
        let mut looks = interval_at(tokio::time::Instant::now() + every, every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks
    }
}

/// What is judged, and the clock by which it is.
pub(super) struct Watch {
    pub(super) alarms: Alarms,
    clock: Clock,
}

impl Watch {
    /// Nothing was seen yet.
    pub(super) fn new() -> Self {
        Self { alarms: Alarms::default(), clock: Clock::new() }
    }

    /// When samples are taken.
    pub(super) fn looks(&self) -> Interval {
        self.clock.looks()
    }

    /// Logs what is wrong by this sample.
    pub(super) fn look(&mut self, sample: &Sample, now: Instant) {
        for (alarm, line) in self.alarms.look(self.clock.at(now), sample) {
            tracing::warn!(alarm = alarm.name(), "{line}");
        }
    }
}

impl MasterView<'_> {
    /// The counters from which alarms are found.
    pub(super) fn sample(&self, now: Instant) -> Sample {
        let config = self.config;
        let ledger = &self.service.dispatch.ledger;
        Sample {
            slots: self.service.dispatch.slots().map(|slot| self.slot_sample(slot, now)).collect(),
            refused: ledger.refused().collect(),
            descriptors: (descriptors::open_count().unwrap_or(0), self.about.descriptor_limit),
            queue: self.fullest_queue(),
            backlog: config.backlog as usize,
            address: self.intake.proxy_watch.leader(),
            affinity: (!config.affinity.is_address_alone()).then(|| config.affinity.to_string()),
            one_address: self.intake.proxy_watch.found().map(str::to_owned),
        }
    }

    fn slot_sample(&self, slot: Slot, now: Instant) -> SlotSample {
        let (supervisor, pool) = (&self.supervisor, &self.service.pool);
        let page = pool.worker(slot, self.service.time(now)).and_then(|worker| supervisor.crew.page(worker.id));
        let reported = page.and_then(|page| figures::read(page));
        let arrivals = match self.config.dispatch {
            DispatchBy::Handover => self.service.dispatch.ledger.delivered()[slot.index()],
            DispatchBy::Kernel => {
                supervisor.histories.counted(slot, self.service, &supervisor.crew).get(Field::Connections).unwrap_or(0)
            }
        };
        SlotSample {
            slot: slot.index(),
            serves: matches!(pool.standing(slot), Availability::Serving(_)),
            arrivals,
            losses: pool.respawned(slot),
            last_exit: supervisor.histories.last_exit(slot).map(str::to_owned),
            delay: reported.as_ref().and_then(delay),
        }
    }

    /// Of the kernel's queues the one with the least room, as a share.
    fn fullest_queue(&self) -> Option<(String, usize, usize)> {
        let own = self.intake.doors.listeners().map(|(_, listener)| listener);
        let groups = self.queues.kernel().into_iter().flat_map(Kernel::places).map(|(_, listener)| listener);
        let queues = own.chain(groups).filter_map(|listener| Some((listener, accept::queue(listener.as_fd())?)));
        let fullest = queues.max_by_key(|(_, queue)| queue.waiting * 1000 / queue.length.max(1));
        fullest.map(|(listener, queue)| (listener.addr().to_string(), queue.waiting, queue.length))
    }
}

/// By how much a worker's event loop is late. One that does not get to writing its page is late by that.
fn delay(reported: &Figures) -> Option<Duration> {
    let delay = Duration::from_nanos(reported.get(Field::LoopDelayP99)?);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = clock.saturating_sub(Duration::from_millis(reported.written));
    Some(delay.max(age.saturating_sub(FRESH)))
}

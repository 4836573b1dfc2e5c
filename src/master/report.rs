//! The master's state, read at one instant.

use std::time::{Instant, SystemTime};

use super::care::Care;
use super::history::unix_time;
use super::intake::Intake;
use super::queues::KernelQueues;
use super::reload::Reloads;
use super::stopping::Phase;
use super::supervise::Supervisor;
use crate::admin::socket::Called;
use crate::admin::{
    AlarmStatus, ControlCounts, CriterionFigures, DrainingWorker, ExitStatus, LinesWanted, LogLine, RoutingFigures,
    SlotBalance, SlotStatus, Snapshot, WorkerStage as Shown,
};
use crate::alarms::{Alarm, Alarms};
use crate::config::{Config, DispatchBy};
use crate::dispatch::link::Link;
use crate::dispatch::service::Service;
use crate::handover::ledger::RouteReason;
use crate::listen::kernel::Kernel;
use crate::log;
use crate::node::primary::ClusterPrimary;
use crate::pending::counts;
use crate::pool::{Cause, SlotState};
use crate::process::lines::Line;
use crate::rooms::RoomsRelay;
use crate::route::Slot;
use crate::sys::descriptors;

/// Lines of workers in one answer.
const MAX_LINES: usize = 1000;

/// What the numbers leave out where the kernel assigns.
const UNSEEN: &str = "the kernel gives connections to the workers without haft's seeing them: accepted, delivered, refused \
    and in_flight are of those alone that haft took out of a slot's accept queue";

/// What does not change while the master lives.
#[derive(Debug)]
pub struct About {
    /// What this haft is called.
    pub(super) called: Called,
    pub(super) descriptor_limit: u64,
    started: (SystemTime, Instant),
}

impl About {
    pub(super) fn new(called: Called, descriptor_limit: u64) -> Self {
        Self { called, descriptor_limit, started: (SystemTime::now(), Instant::now()) }
    }
}

/// All that there is to see, at one instant.
pub(super) struct MasterView<'a> {
    pub(super) about: &'a About,
    pub(super) phase: Phase,
    pub(super) config: &'a Config,
    pub(super) reloads: &'a Reloads,
    pub(super) service: &'a Service,
    pub(super) supervisor: &'a Supervisor,
    pub(super) intake: &'a Intake,
    pub(super) queues: &'a KernelQueues,
    pub(super) care: &'a Care,
}

impl MasterView<'_> {
    /// One line of totals.
    pub(super) fn summary(&self) -> String {
        let ledger = &self.service.dispatch.ledger;
        let in_place_of_whom = match self.config.dispatch {
            DispatchBy::Handover => "",
            DispatchBy::Kernel => " (of connections that waited in vain; the workers accept by themselves)",
        };
        let cut_off = match self.supervisor.cut_off() {
            0 => String::new(),
            cut_off => format!(", cut off when workers ended {cut_off}"),
        };
        format!(
            "accepted {}, delivered {}, refused {}{in_place_of_whom}{cut_off}",
            ledger.accepted(),
            ledger.delivered().iter().sum::<u64>(),
            ledger.refused().map(|(_, count)| count).sum::<u64>()
        )
    }

    pub(super) fn snapshot(&self, alarms: &Alarms) -> Snapshot {
        let ledger = &self.service.dispatch.ledger;
        let (started, since) = self.about.started;
        let own = self.queues.kernel().into_iter().flat_map(Kernel::addrs);
        let balance = self.service.dispatch.balances();
        let (log, node) = (log::missing(), self.service.dispatch.node.as_ref());
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.about.called.name().to_string(),
            pid: std::process::id(),
            started,
            uptime: since.elapsed(),
            listen: self
                .intake
                .doors
                .listeners()
                .map(|(_, listener)| listener.addr())
                .chain(own)
                .map(ToString::to_string)
                .collect(),
            affinity: self.config.affinity.to_string(),
            dispatch: self.config.dispatch.to_string(),
            note: self.queues.kernel().is_some().then_some(UNSEEN),
            keeps_stdout: self.supervisor.crew.keeps_stdout(),
            stopping: matches!(self.phase, Phase::Flushing | Phase::Stopping),
            accepted: ledger.accepted(),
            delivered: ledger.delivered().to_vec(),
            refused: ledger.refused().map(|(refusal, count)| (refusal.name(), count)).collect(),
            // Counted one by one, not derived from the other figures: so the books can be checked.
            in_flight: (self.held() + self.service.dispatch.in_flight()) as u64,
            held: self.held() as u64,
            redelivered_unread: ledger.redelivered_unread,
            redelivered_unacknowledged: ledger.redelivered_unacknowledged,
            returned: ledger.returned,
            routing: self.routing(),
            rescued: ledger.rescued,
            listener_repairs: self.queues.kernel().map(Kernel::repairs).unwrap_or_default().by_fault(),
            accept_errors: vec![("aborted", ledger.aborted), ("no_descriptor", ledger.exhausted)],
            hand_over: ledger.hand_over().clone(),
            process: None,
            descriptors_open: descriptors::open_count().unwrap_or(0),
            descriptors_limit: self.about.descriptor_limit,
            generation: self.service.pool.newest(),
            reload: self.reloads.status.clone(),
            reloads_done: self.reloads.done,
            reloads_failed: self.reloads.failed,
            hung: ledger.hung,
            hang_kills: ledger.hang_kills,
            node_messages: node.map_or(0, |primary| primary.messages),
            node_messages_dropped: node.map_or(0, |primary| primary.dropped),
            rooms: self.rooms().map(RoomsRelay::totals).unwrap_or_default(),
            node_listens_refused: node.map_or(0, |primary| primary.refused),
            node_troubles: self.service.dispatch.node.as_ref().map(|it| it.troubles.by_kind()).unwrap_or_default(),
            node_names_forgotten: node.map_or(0, |primary| primary.forgotten()),
            log_lines_dropped: log.dropped,
            log_lines_suppressed: log.suppressed,
            alarms: Alarm::ALL.into_iter().map(|alarm| alarm_status(alarm, alarms)).collect(),
            control: ControlCounts::default(),
            slots: self.service.dispatch.slots().map(|slot| self.slot_status(slot, &balance)).collect(),
            draining: self.draining(),
            balance,
        }
    }

    /// The relay between workers, if they share rooms.
    fn rooms(&self) -> Option<&RoomsRelay> {
        let node = self.service.dispatch.node.as_ref();
        node.and_then(ClusterPrimary::rooms).or(self.supervisor.rooms())
    }

    fn routing(&self) -> RoutingFigures {
        RoutingFigures {
            routed: RouteReason::ALL
                .into_iter()
                .map(RouteReason::name)
                .zip(self.service.dispatch.ledger.routed)
                .collect(),
            unattributed: self.intake.peeking.counts.unattributed,
            peeking: self.intake.peeking.len() as u64,
            at_the_gate: self.intake.gate.len() as u64,
            traces: self.service.dispatch.ledger.trace.followers(),
            delayed: self.intake.gate.delayed,
            given_up: self.intake.peeking.counts.given_up(),
            proxy_headers: self.intake.peeking.counts.proxy_headers(),
            client_ip_headers: self.intake.peeking.counts.client_ip_headers(),
            ipv4_prefix: self.config.prefix.ipv4,
            ipv6_prefix: self.config.prefix.ipv6,
            other_hosts: self.intake.peeking.counts.other_hosts,
            criteria: self.intake.peeking.counts.criteria.iter().map(criterion).collect(),
        }
    }

    /// The last lines that workers wrote.
    pub(super) fn lines(&self, wanted: LinesWanted) -> Vec<LogLine> {
        let slot = wanted.slot.map(|slot| Slot(u16::try_from(slot).unwrap_or(u16::MAX)));
        let lines = self.supervisor.crew.lines.borrow().after(wanted.after, slot, MAX_LINES);
        let as_line = |line: Line| LogLine {
            number: line.number,
            unix_ms: line.unix_ms,
            slot: line.slot.index(),
            text: line.text,
        };
        lines.into_iter().map(as_line).collect()
    }

    /// Connections that wait for a worker, or for their first request.
    fn held(&self) -> usize {
        self.service.dispatch.held() + self.intake.held()
    }

    /// The workers that finish what they have.
    fn draining(&self) -> Vec<DrainingWorker> {
        let leaving = self.service.pool.leaving_workers(self.service.time(Instant::now()));
        let row = |(slot, worker): (Slot, crate::pool::WorkerInfo)| {
            let link = self.service.dispatch.links().find(|link| link.worker == worker.id);
            DrainingWorker {
                slot: slot.index(),
                worker: worker.id.0,
                pid: self.supervisor.crew.pid(worker.id),
                generation: worker.generation.into(),
                uptime: worker.age,
                in_flight: link.map_or(0, |link| link.in_flight() as u64),
                held: link.map_or(0, |link| link.own.len() as u64),
                open: link.and_then(Link::open).map(u64::from),
                sessions: link.filter(|link| link.reports_sessions()).map(Link::reported_sessions),
            }
        };
        leaving.map(row).collect()
    }

    /// Whether the slot's worker, a Node program that is ready, has no server any more.
    fn listens_on_nothing(&self, slot: Slot) -> bool {
        let primary = self.service.dispatch.node.as_ref();
        let worker = self.service.pool.accepting(slot);
        worker.is_some_and(|worker| primary.is_some_and(|primary| !primary.serves(worker)))
    }

    fn slot_status(&self, slot: Slot, balance: &[SlotBalance]) -> SlotStatus {
        let (supervisor, pool) = (&self.supervisor, &self.service.pool);
        let worker = pool.worker(slot, self.service.time(Instant::now()));
        let link = worker.and_then(|worker| self.service.dispatch.links().find(|link| link.worker == worker.id));
        let history = supervisor.histories.of(slot);
        SlotStatus {
            slot: slot.index(),
            state: match pool.state(slot) {
                SlotState::Starting => Shown::Starting,
                SlotState::Ready => Shown::Ready,
                SlotState::Draining => Shown::Draining,
                SlotState::Gone => Shown::Gone,
            },
            drained: pool.is_drained(slot),
            restarting: pool.is_renewing(slot),
            hung: worker.is_some_and(|worker| worker.hung),
            listens_on_nothing: self.listens_on_nothing(slot),
            kept_out: pool.is_kept_out(slot),
            draining_workers: pool.leaving(slot),
            generation: worker.map_or(0, |worker| worker.generation.into()),
            worker: worker.map_or(0, |worker| worker.id.0),
            pid: worker.and_then(|worker| supervisor.crew.pid(worker.id)),
            uptime: worker.map_or_else(Default::default, |worker| worker.age),
            in_flight: balance[slot.index()].in_flight,
            held: balance[slot.index()].held,
            delivered: self.service.dispatch.ledger.delivered()[slot.index()],
            accept_queue: self.queues.kernel().map(|kernel| kernel.waiting(slot) as u64),
            open: link.and_then(|link| link.open()).map(u64::from),
            sessions: link.filter(|link| link.reports_sessions()).map(Link::reported_sessions),
            process: None,
            cpu: history.map_or_else(Default::default, |history| history.cpu),
            reported: None,
            respawned: pool.respawned(slot),
            replaced: Cause::ALL.into_iter().map(Cause::name).zip(pool.replaced(slot)).collect(),
            health_checks: {
                let checks = self.care.health.checks.get(&slot).copied().unwrap_or_default();
                vec![("passed", checks.passed), ("failed", checks.failed)]
            },
            deaths_by_reason: history
                .into_iter()
                .flat_map(|history| &history.deaths)
                .map(|(reason, count)| (reason.clone(), *count))
                .collect(),
            last_exit: history
                .and_then(|history| history.last_exit.as_ref())
                .map(|(description, unix_time)| ExitStatus { description: description.clone(), unix_time: *unix_time }),
            output_lines_dropped: log::dropped_of(slot),
            output_pauses: log::pauses_of(slot),
        }
    }
}

fn criterion(count: &counts::CriterionCount) -> CriterionFigures {
    let counts::CriterionCount { criterion, decided, absent, too_long } = count;
    let outcomes = vec![("decided", *decided), ("absent", *absent), ("too_long", *too_long)];
    CriterionFigures { criterion: criterion.clone(), outcomes }
}

fn alarm_status(alarm: Alarm, alarms: &Alarms) -> AlarmStatus {
    let (raised, active) = alarms.state(alarm);
    AlarmStatus {
        alarm: alarm.name(),
        active: active.is_some(),
        raised,
        unix_time: active.map(|(_, since)| unix_time().saturating_sub(since.elapsed().as_secs())),
        line: active.map(|(finding, _)| finding.line()),
    }
}

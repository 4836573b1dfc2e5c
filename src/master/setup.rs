//! The master before it serves: what it opens, and how its parts are made.

use std::time::{Duration, Instant};

use super::alarms::Watch;
use super::batching::Batching;
use super::budget::Budget;
use super::care::Care;
use super::error::Context;
use super::finished::Finished;
use super::intake::Intake;
use super::manager::ServiceManager;
use super::plan::Plan;
use super::queues::KernelQueues;
use super::reload::Reloads;
use super::settling::Settling;
use super::stopping::Life;
use super::supervise::Supervisor;
use super::{Inbox, Master, MasterError, Reread, admin_pages, preload, report};
use crate::addr::{ListenAddr, PassedAddr};
use crate::admin::{self, socket::Called};
use crate::config::{Config, DispatchBy};
use crate::dispatch::service::Service;
use crate::listen::kernel::{Kernel, KernelError};
use crate::node::primary::ClusterPrimary;
use crate::process::guardian::Guardian;
use crate::route::TagKey;
use crate::sys::account::Account;
use crate::sys::listen::{Access, ListenError, Listener};
use crate::sys::poller::Poller;

/// Where a master was killed a moment ago, its guardian frees the ports of its workers within this time.
const GUARDIAN_PATIENCE: Duration = Duration::from_millis(1500);

/// The soft limit on this process's descriptors (RLIMIT_NOFILE).
#[derive(Debug, Clone, Copy)]
pub struct DescriptorLimits {
    /// As haft was started: its workers get the same.
    pub at_start: u64,
    /// As it is now.
    pub now: u64,
}

/// Opens what `--listen` names: listeners of our own, or one for each slot, which come first. What was `passed` is open
/// already.
fn listen(
    config: &Config,
    plan: &Plan,
    passed: Vec<(PassedAddr, Listener)>,
) -> Result<(Vec<Listener>, Option<Kernel>), MasterError> {
    let (by_kernel, by_master) = plan.listen.split_at(plan.listened_by_kernel(config));
    Ok(match config.dispatch {
        DispatchBy::Handover => (bind(by_master, passed, config)?, None),
        DispatchBy::Kernel => {
            let until = Instant::now() + GUARDIAN_PATIENCE;
            let kernel = loop {
                match Kernel::new(config, by_kernel, plan.passes_listeners()) {
                    Err(KernelError::Listen(ListenError::PortInUse(_))) if Instant::now() < until => {
                        std::thread::sleep(GUARDIAN_PATIENCE / 100);
                    }
                    outcome => break outcome?,
                }
            };
            (bind(by_master, passed, config)?, Some(kernel))
        }
    })
}

fn bind(
    addrs: &[ListenAddr],
    mut passed: Vec<(PassedAddr, Listener)>,
    config: &Config,
) -> Result<Vec<Listener>, ListenError> {
    let bind = |addr: &ListenAddr| match passed.iter().position(|(passed, _)| passed.addr == *addr) {
        Some(at) => Ok(passed.swap_remove(at).1),
        None => Listener::bind(addr, config.backlog, Access::Umask),
    };
    addrs.iter().map(bind).collect()
}

/// What Node programs take for the primary of their cluster, if the plan has Node programs.
fn cluster_primary(plan: &Plan, kernel: Option<&Kernel>, listeners: &[Listener]) -> Option<ClusterPrimary> {
    plan.node.clone().map(|node| match kernel {
        None => ClusterPrimary::new(node, listeners),
        Some(kernel) => ClusterPrimary::over_kernel(node, kernel, listeners),
    })
}

/// The first line of the log.
fn announce(config: &Config, plan: &Plan) {
    tracing::info!(
        pid = std::process::id(),
        workers = config.workers,
        program = %plan.shown,
        affinity = %config.affinity,
        dispatch = %config.dispatch,
        "haft {}",
        env!("CARGO_PKG_VERSION")
    );
}

/// The tag key: the configured one, or a random one.
fn tag_key(config: &Config) -> Result<TagKey, MasterError> {
    if let Some(secret) = &config.sessions.tag_key {
        return Ok(secret.key.clone());
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other).context("making a secret for tags")?;
    Ok(TagKey::new(bytes))
}

/// Empty slots, whose workers do not all grow old at the same time.
fn service(config: &Config) -> Result<Service, MasterError> {
    let mut service = Service::new(config, Instant::now())?;
    service.pool.set_seed(seed()?);
    Ok(service)
}

/// A value that cannot be guessed.
fn seed() -> Result<u64, MasterError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other).context("making a seed")?;
    Ok(u64::from_ne_bytes(bytes))
}

/// A master that has not begun, and what comes to its loop from beside it.
pub(super) fn master(
    config: Config,
    passed: Vec<(PassedAddr, Listener)>,
    limits: DescriptorLimits,
    reread: Reread,
    (guardian, account): (Option<Guardian>, Option<Account>),
) -> Result<(Master, Inbox), MasterError> {
    let (control, requests) = admin::channel();
    let (mut finished, found) = Finished::new();
    let (care, looks) = Care::new();
    let tag_key = tag_key(&config)?;
    let plan = Plan::new(&config, &tag_key)?;
    let preload = preload::first_preload(&plan)?;
    announce(&config, &plan);
    let passed_addrs = passed.iter().map(|(addr, _)| addr.clone()).collect();
    let (listeners, kernel) = listen(&config, &plan, passed)?;
    let bound: Vec<_> = listeners.iter().map(Listener::addr).chain(kernel.iter().flat_map(Kernel::addrs)).collect();
    bound.iter().for_each(|addr| finished.opened(addr));
    let called = Called::new(&config, bound.iter().copied());
    let admin_files = admin_pages::serve(&config, called.name(), &control)?;
    let about = report::About::new(called, limits.now);
    let own_listeners = kernel.iter().map(|kernel| kernel.places().count() + kernel.count()).sum::<usize>() as u64;
    let mut service = service(&config)?;
    service.dispatch.node = cluster_primary(&plan, kernel.as_ref(), &listeners);
    let of_kernel = kernel.iter().map(|kernel| kernel.own().count() as u32).sum();
    let budget = Budget::new(limits.now.saturating_sub(own_listeners), config.workers);
    let intake = Intake::new(&config, &tag_key, (listeners, of_kernel), (budget, seed()?))?;
    let (supervisor, exits) = Supervisor::new(&config, plan, preload, (limits.at_start, guardian, account));
    let poller = Poller::new(256).context("making an epoll set")?;
    let mut master = Master {
        batching: Batching::new(&poller).context("making an epoll set")?,
        poller,
        life: Life::new(),
        intake,
        queues: KernelQueues::new(kernel),
        service,
        supervisor,
        reloads: Reloads::new(config, tag_key, passed_addrs, reread),
        care,
        finished,
        settling: Settling::default(),
        watch: Watch::new(),
        about,
        manager: ServiceManager::find(),
        admin_files,
    };
    master.queues.guard(&mut master.supervisor.crew.guardian);
    Ok((master, Inbox { exits, found, looks, requests }))
}

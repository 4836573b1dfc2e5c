//! What the master opens before it serves: listeners, the secret of tags.

use std::time::{Duration, Instant};

use super::MasterError;
use super::error::Context;
use super::plan::Plan;
use crate::addr::{ListenAddr, PassedAddr};
use crate::config::{Config, DispatchBy};
use crate::dispatch::service::Service;
use crate::listen::kernel::{Kernel, KernelError};
use crate::node::primary::ClusterPrimary;
use crate::route::TagKey;
use crate::sys::listen::{Access, ListenError, Listener};

/// Where a master was killed a moment ago, its guardian frees the ports of its workers within this time.
const GUARDIAN_PATIENCE: Duration = Duration::from_millis(1500);

/// Opens what `--listen` names: listeners of our own, or one for each slot, which come first. What was `passed` is open
/// already.
pub(super) fn listen(
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
pub(super) fn cluster_primary(plan: &Plan, kernel: Option<&Kernel>, listeners: &[Listener]) -> Option<ClusterPrimary> {
    plan.node.clone().map(|node| match kernel {
        None => ClusterPrimary::new(node, listeners),
        Some(kernel) => ClusterPrimary::over_kernel(node, kernel, listeners),
    })
}

/// The first line of the log.
pub(super) fn announce(config: &Config, plan: &Plan) {
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
pub(super) fn tag_key(config: &Config) -> Result<TagKey, MasterError> {
    if let Some(secret) = &config.sessions.tag_key {
        return Ok(secret.key.clone());
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other).context("making a secret for tags")?;
    Ok(TagKey::new(bytes))
}

/// Empty slots, whose workers do not all grow old at the same time.
pub(super) fn service(config: &Config) -> Result<Service, MasterError> {
    let mut service = Service::new(config, Instant::now())?;
    service.pool.set_seed(seed()?);
    Ok(service)
}

/// A value that cannot be guessed.
pub(super) fn seed() -> Result<u64, MasterError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other).context("making a seed")?;
    Ok(u64::from_ne_bytes(bytes))
}

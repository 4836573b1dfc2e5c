//! Why a worker is not ready: what it does instead of taking its connections from haft, and the cure.

use crate::dispatch::service::Service;
use crate::ids::WorkerId;
use crate::node::wire::{Noticed, Trouble};
use crate::process::crew::Processes;
use crate::sys::process::own_listeners;

/// What listens so, and the cure.
const BY_ITSELF: &str = "and not on a server of haft's. uWebSockets.js, Bun, Deno.serve(), native addons and servers in a worker \
    thread (worker_threads) do so, and a Node that has no channel to haft: what has closed it is logged above. Such a server \
    cannot get its connections from haft: let the program listen with node:http or node:net";

/// What a worker that is not ready does instead, and the cure.
pub(super) fn why(worker: WorkerId, service: &mut Service, crew: &Processes) -> String {
    if let Some(own) = listens_by_itself(worker, service, crew) {
        return format!("it listens by itself on {own}, {BY_ITSELF}");
    }
    let why = service.dispatch.link(worker).map_or("", |link| link.why_not_ready());
    service.dispatch.node.iter_mut().for_each(|it| it.troubles.note(Noticed::NeverListens));
    match &service.dispatch.node {
        Some(primary) if primary.troubles.has(Trouble::Fork) => Trouble::Fork.text().to_owned(),
        _ => why.to_owned(),
    }
}

/// A worker died before it was ready. If another one listens by itself, that is likely why: the address is taken.
/// Said once.
pub(super) fn look_for_own_listeners(service: &mut Service, crew: &Processes) {
    let Some(node) = &service.dispatch.node else { return };
    if node.troubles.has_noticed(Noticed::OwnListener) {
        return;
    }
    let starting: Vec<WorkerId> = crew.workers().filter(|id| !service.pool.was_ready(*id)).collect();
    for worker in starting {
        if let Some(own) = listens_by_itself(worker, service, crew) {
            tracing::error!(worker = worker.0, "the worker listens by itself on {own}, {BY_ITSELF}");
            return;
        }
    }
}

/// Where a worker of Node's listens by itself, in words; it is counted.
fn listens_by_itself(worker: WorkerId, service: &mut Service, crew: &Processes) -> Option<String> {
    let node = service.dispatch.node.as_mut()?;
    let own = own_listeners(crew.pid(worker)?).unwrap_or_default();
    if own.is_empty() {
        return None;
    }
    node.troubles.note(Noticed::OwnListener);
    Some(own.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

//! The preload on its way to the workers: it is written when it is needed, and where Node cannot read its file, it is passed
//! by a descriptor.

use super::plan::Plan;
use crate::node::preload::{Preload, PreloadError};
use crate::node::primary::ClusterPrimary;
use crate::node::wire::Noticed;

/// Has the preload written, if it is not there any more.
fn ensure(preload: &mut Option<Preload>) -> Result<(), PreloadError> {
    match preload {
        Some(preload) => preload.ensure(),
        None => Preload::write().map(|written| *preload = Some(written)),
    }
}

/// The preload for the first workers of this plan, if they are to have it.
pub(super) fn first_preload(plan: &Plan) -> Result<Option<Preload>, PreloadError> {
    let mut preload = None;
    if plan.preload {
        ensure_for(plan, &mut preload)?;
    }
    Ok(preload)
}

/// The same, for a worker of this plan: one that only gains by it does without where it cannot be written.
pub(super) fn ensure_for(plan: &Plan, preload: &mut Option<Preload>) -> Result<(), PreloadError> {
    match ensure(preload) {
        Err(error) if plan.needs_preload => return Err(error),
        Err(error) => {
            *preload = None;
            tracing::warn!("{error}");
        }
        Ok(()) => {}
    }
    if let Some(refused) = preload.as_ref().filter(|preload| plan.needs_preload && !preload.can_be_passed()) {
        return Err(PreloadError::Refused(refused.file().to_owned()));
    }
    if plan.keeps_preload_out()
        && let Some(Err(error)) = preload.as_mut().map(Preload::pass_by_descriptor)
    {
        tracing::warn!("the preload cannot be passed by a descriptor: {error}");
    }
    Ok(())
}

/// A worker has ended since its Node could not read the preload, and wrote this: the next ones get it in another way, or
/// go without.
pub(super) fn was_unreadable(preload: &mut Option<Preload>, node: Option<&mut ClusterPrimary>, written: &str) {
    // Workers that were started before this was learnt write it, too.
    let is_news = |preload: &&mut Preload| preload.can_be_passed() && preload.unreadable() == written;
    let Some(preload) = preload.as_mut().filter(is_news) else { return };
    let file = preload.file().display().to_string();
    if preload.page().is_some() {
        preload.refuse();
        // Where something needs it, the next start is refused with that.
        tracing::warn!(
            "the worker's Node is older than 18.18 and does not take haft's preload by a descriptor. Workers go without \
             it from now on: broadcasts of Socket.IO stay within a worker, and goodbyes and figures are missing. Use Node \
             18.18 or later, or let the workers read {file}"
        );
        return;
    }
    node.into_iter().for_each(|node| node.troubles.note(Noticed::PreloadUnreadable));
    match preload.pass_by_descriptor() {
        Ok(()) => tracing::warn!(
            "the worker could not read haft's preload ({file}): the command restricts what it may read, or sees other \
             files. Workers are given the preload by a descriptor from now on, which Node takes from 18.18 on"
        ),
        Err(error) => tracing::error!(
            "the worker could not read haft's preload ({file}), and it cannot be passed by a descriptor: {error}; let the \
             program read that file, or use --no-preload"
        ),
    }
}

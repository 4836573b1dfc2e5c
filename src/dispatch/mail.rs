//! Messages of Node workers to each other.

use super::Dispatch;
use crate::dispatch::link::Link;
use crate::ids::WorkerId;
use crate::node::primary::{Mail, NodeDesk};
use crate::node::wire::To;
use crate::pool::Standing;
use crate::route::Tag;

impl Dispatch {
    /// Gives each message to the workers that it is for. What no worker gets is counted.
    pub(super) fn deliver_mail(&mut self) {
        for mail in self.node.as_mut().map(NodeDesk::take_mail).unwrap_or_default() {
            let named = if let Mail::Pass(tag, _) = &mail { self.named_by(*tag) } else { None };
            let is_lost = matches!(mail, Mail::Pass(..)) && named.is_none();
            self.node.iter_mut().for_each(|desk| desk.dropped += u64::from(is_lost));
            for link in self.links.values_mut() {
                let is_for = match &mail {
                    Mail::Message(To::One(worker), _) => link.worker == *worker,
                    Mail::Message(To::AllBut(worker), _) => link.worker != *worker,
                    Mail::Message(To::Nobody, _) => false,
                    Mail::Pass(..) => named == Some(link.worker),
                    Mail::Notice(_) => true,
                };
                if is_for && !link.mail(&mail) {
                    self.node.iter_mut().for_each(|desk| desk.dropped += 1);
                }
            }
        }
    }

    /// The worker of a tag, or else the one that fills its slot.
    fn named_by(&self, tag: Tag) -> Option<WorkerId> {
        let of_tag = |link: &&Link| link.slot == tag.slot && link.generation == tag.generation && !link.has_ended();
        let own = self.links.values().rfind(of_tag).map(|link| link.worker);
        own.or_else(|| match self.standings.get(tag.slot.index())? {
            Standing::Serving(worker) => Some(*worker),
            Standing::Expected | Standing::Bypassed => None,
        })
    }
}

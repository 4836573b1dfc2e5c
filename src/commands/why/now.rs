//! Where a client goes now, by the slots of a running haft.

use std::ffi::OsString;

use super::explain::By;
use super::screen::row;
use crate::commands::client::Client;
use crate::commands::view::{SlotView, Status};
use crate::log::escaped;

/// The flags that a running haft has, as far as they decide where clients go. The flags about proxies are not among
/// them.
pub(super) fn flags(status: &Status) -> Vec<OsString> {
    let mut flags = vec!["haft".to_owned(), format!("--workers={}", status.slots.len().max(1))];
    flags.push(format!("--affinity={}", status.affinity));
    flags.extend(status.routing.ipv4_prefix.map(|bits| format!("--ipv4-prefix={bits}")));
    flags.extend(status.routing.ipv6_prefix.map(|bits| format!("--ipv6-prefix={bits}")));
    if status.dispatch == "kernel" {
        flags.push("--dispatch=kernel".to_owned());
    }
    flags.into_iter().map(OsString::from).collect()
}

/// Whether the haft has signed the tag of a session; none if it does not say.
pub(super) fn has_signed(client: &Client, sid: &str) -> Option<bool> {
    // What the tag of any haft is made of; anything else has none.
    if !sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        return None;
    }
    let answer = client.get(&format!("/session?sid={sid}")).ok().filter(|answer| answer.status.is_success())?;
    serde_json::from_str::<serde_json::Value>(&answer.body).ok()?.get("signed")?.as_bool()
}

/// What its slots are now, and which one the client goes to.
pub(super) fn rows(status: &Status, by: &By) -> String {
    let mut text = String::new();
    let mut say = |name: &str, value: String| {
        // Text in memory takes all.
        row(&mut text, name, value).ok();
    };
    let condition = |slot: &SlotView| format!("slot {} is {}", slot.slot, escaped(&slot.condition()));
    match by {
        By::Key { order, .. } => {
            let order = order.iter().filter_map(|slot| status.slots.iter().find(|it| it.slot == slot.index()));
            let (mut passed, mut taken) = (Vec::new(), None);
            for slot in order {
                if is_passed_over(slot) {
                    passed.push(condition(slot));
                } else {
                    taken = Some(slot);
                    break;
                }
            }
            match taken {
                Some(slot) => say("now", format!("slot {}, {}", slot.slot, worker(slot))),
                None => say("now", "no slot takes clients".to_owned()),
            }
            passed.into_iter().for_each(|condition| say("  since", condition));
        }
        By::Session(tag) => {
            let (slot, generation) = (tag.slot.index(), u64::from(tag.generation));
            let present = status.slots.iter().find(|it| it.slot == slot);
            let finishing = status.draining.iter().find(|it| it.slot == slot && it.generation == generation);
            let text = match (present, finishing) {
                (Some(it), _) if it.generation == generation => format!("it is there: {}", worker(it)),
                (_, Some(it)) => {
                    format!(
                        "it is there, and finishes: pid {}",
                        it.pid.map_or("none".to_owned(), |pid| pid.to_string())
                    )
                }
                (Some(it), None) => format!("it is gone: {}", condition(it)),
                (None, None) => "it is gone".to_owned(),
            };
            say("now", text);
        }
        By::RecentSessions | By::Load | By::Unknown(_) => {
            status.slots.iter().for_each(|slot| say("now", condition(slot)));
        }
    }
    text
}

/// Whether clients go past it to the next one; for a worker that is to come they wait.
fn is_passed_over(slot: &SlotView) -> bool {
    slot.hung || slot.drained || slot.listens_on_nothing
}

fn worker(slot: &SlotView) -> String {
    let pid = slot.pid.map_or("no process".to_owned(), |pid| format!("pid {pid}"));
    format!("{pid}, {}", escaped(&slot.condition()))
}

//! `/trace`: which connections are asked for, and the line for each. A line of JSON for each, and one each second about
//! those that were dropped.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use super::action;
use super::answer::{Answer, live, plain};
use super::change::ControlError;
use super::live::{READING_TIME, StreamPlace};
use super::places::{Stage, StageReport};
use crate::config::MAX_WORKERS;
use crate::connection::RouteBy;
use crate::handover::trace::{DeliveryOutcome, Filter, Following, TooManyFollowers, Traced};
use crate::peek::TrustedProxy;
use crate::route::Slot;

/// Its path.
pub(super) const PATH: &str = "/trace";
/// How it is asked for.
pub(super) const USAGE: &str = "/trace[?slot=K&client=CIDR&one_in=N]";
/// How often the number of dropped lines is written: so a reader that is gone is noticed.
const EVERY: Duration = Duration::from_secs(1);
/// Bytes of lines that are written at a time, about.
const PIECE: usize = 16 * 1024;

/// The line for a connection.
#[derive(Debug, Serialize)]
struct TraceLine {
    unix_ms: u64,
    client: String,
    stated_by_proxy: bool,
    listener: u32,
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<TagLine>,
    key: String,
    slot: Option<usize>,
    moves: usize,
    took_us: u64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// The content of a session's tag.
#[derive(Debug, Serialize)]
struct TagLine {
    slot: usize,
    generation: u32,
}

/// The connections that a query asks for; `None` if it is wrong.
pub(super) fn wanted(query: Option<&str>) -> Option<Filter> {
    let mut filter = Filter::default();
    let given = query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
    for (name, value) in given.map(|parameter| parameter.split_once('=').unwrap_or((parameter, ""))) {
        // `u64::from_str` would take `+5`.
        let number = value.parse::<u64>().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
        match (name, number) {
            ("slot", Some(slot)) if slot < MAX_WORKERS as u64 => filter.slot = u16::try_from(slot).ok().map(Slot),
            ("one_in", Some(one_in)) if one_in > 0 => filter.one_in = one_in,
            ("client", _) => match value.parse() {
                Ok(TrustedProxy::Net(net)) => filter.client = Some(net),
                _ => return None,
            },
            _ => return None,
        }
    }
    Some(filter)
}

/// What became of connections, as it comes.
pub(super) fn answered(
    asked: &HeaderMap,
    result: Result<Result<Following, TooManyFollowers>, ControlError>,
    place: StreamPlace,
    progress: StageReport,
) -> Answer {
    match result {
        Ok(Ok(following)) => {
            let (pieces, received) = mpsc::channel(1);
            tokio::spawn(stream(following, place, progress, pieces));
            live("application/x-ndjson", received)
        }
        Ok(Err(error)) => action::say(StatusCode::CONFLICT, asked, &error.to_string()),
        Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

async fn stream(mut following: Following, place: StreamPlace, progress: StageReport, pieces: mpsc::Sender<Bytes>) {
    let mut ticks = interval(EVERY);
    loop {
        let mut piece = Vec::new();
        tokio::select! {
            _ = ticks.tick() => {
                let dropped = following.dropped.load(Ordering::Relaxed);
                piece.extend_from_slice(format!("{{\"dropped\":{dropped}}}\n").as_bytes());
            }
            traced = following.connections.recv() => {
                let Some(traced) = traced else { return };
                append(&mut piece, &traced);
                while piece.len() < PIECE && let Ok(traced) = following.connections.try_recv() {
                    append(&mut piece, &traced);
                }
            }
            () = place.is_displaced() => return,
            () = pieces.closed() => return,
        }
        if !matches!(timeout(READING_TIME, pieces.send(piece.into())).await, Ok(Ok(()))) {
            progress.reach(Stage::Writing);
            return;
        }
    }
}

fn append(piece: &mut Vec<u8>, traced: &Traced) {
    if serde_json::to_writer(&mut *piece, &line(traced)).is_ok() {
        piece.push(b'\n');
    }
}

fn line(traced: &Traced) -> TraceLine {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (outcome, worker, reason) = match traced.outcome {
        DeliveryOutcome::Delivered(worker) => ("delivered", Some(worker.0), None),
        DeliveryOutcome::Refused(reason) => ("refused", None, Some(reason.name())),
    };
    let (by, tag) = match traced.goal {
        RouteBy::Address => ("address", None),
        RouteBy::Value(kind) => (kind.word(), None),
        RouteBy::Session(tag) => ("session", Some(TagLine { slot: tag.slot.index(), generation: tag.generation })),
        RouteBy::RecentSessions => ("opening", None),
        RouteBy::Load => ("load", None),
    };
    TraceLine {
        unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        client: traced.client.to_string(),
        stated_by_proxy: traced.client_is_stated,
        listener: traced.listener,
        by,
        tag,
        key: format!("{:016x}", traced.key.bits()),
        slot: traced.slot.map(Slot::index),
        moves: traced.moves,
        took_us: u64::try_from(traced.took.as_micros()).unwrap_or(u64::MAX),
        outcome,
        worker,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::EndAddr;
    use crate::connection::RejectReason;
    use crate::ids::WorkerId;
    use crate::route::{Key, Tag};

    #[test]
    fn a_query_says_which_connections() {
        assert_eq!(wanted(None), Some(Filter::default()));
        let client = "10.0.0.0/8".parse().ok();
        let filter = Filter { client, slot: Some(Slot(3)), one_in: 100 };
        assert_eq!(wanted(Some("slot=3&client=10.0.0.0/8&one_in=100")), Some(filter));
        assert_eq!(wanted(Some("client=::1")), Some(Filter { client: "::1/128".parse().ok(), ..Filter::default() }));
        for wrong in ["slot", "slot=1024", "slot=+1", "client=x", "client=unix", "client=10.0.0.1/8", "one_in=0", "x=1"]
        {
            assert_eq!(wanted(Some(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn a_line_says_what_decided_where_it_went_and_how_it_ended() {
        let client = EndAddr::from_ip("192.0.2.7:4711".parse().expect("an address"));
        let goal = RouteBy::Session(Tag { slot: Slot(1), generation: 2 });
        let traced = Traced {
            client,
            client_is_stated: true,
            listener: 0,
            goal,
            key: Key::ANYONE,
            slot: Some(Slot(1)),
            moves: 1,
            took: Duration::from_micros(1500),
            outcome: DeliveryOutcome::Delivered(WorkerId(9)),
        };
        let json = |traced: &Traced| serde_json::to_value(line(traced)).expect("JSON");
        let shown = json(&traced);
        assert_eq!(
            (&shown["client"], &shown["by"], &shown["worker"]),
            (&"192.0.2.7:4711".into(), &"session".into(), &9.into())
        );
        assert_eq!((&shown["tag"]["generation"], &shown["took_us"]), (&2.into(), &1500.into()));
        assert!(shown.get("reason").is_none());
        let outcome = DeliveryOutcome::Refused(RejectReason::NoWorker);
        let refused = json(&Traced { outcome, goal: RouteBy::Load, slot: None, ..traced });
        assert_eq!((&refused["outcome"], &refused["reason"]), (&"refused".into(), &"no_worker".into()));
        assert!(refused["slot"].is_null() && refused.get("tag").is_none() && refused.get("worker").is_none());
    }
}

//! Where a first request leads: the first criterion of `--affinity` that it meets.

use percent_encoding::percent_decode_str;

use super::counts::{CriterionCount, PeekCounts};
use crate::config::{Affinity, Config, Criterion, MAX_CRITERIA, Rest};
use crate::connection::{ClientConnection, RouteBy};
use crate::dispatch::Dispatch;
use crate::node::named::{OwnerLookup, SessionKey};
use crate::node::paths::Learnt;
use crate::peek::{NoValue, Request, ValueRoom, request};
use crate::route::{HostId, Key, Reading, Tag, TagKey, Tagger, ValueKeys};

/// What decides, by the request alone.
#[derive(Debug)]
pub struct Aims {
    affinity: Affinity,
    tagger: Tagger,
    keys: ValueKeys,
    paths: Vec<String>,
    /// Whether there may be others, which Node workers report.
    learns_paths: bool,
    sticky_paths: Vec<String>,
}

/// Where a request leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// It is decided, and the connection knows where.
    Decided,
    /// The headers that have not come yet may decide.
    Headers,
    /// Decided, but that a worker may be about to name this session.
    AwaitingOwner(SessionKey),
}

/// What one request comes to.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it leads.
    pub goal: RouteBy,
    /// What must stick, if a value decides.
    pub key: Option<Key>,
    outcomes: [Result<RouteBy, NoValue>; MAX_CRITERIA],
    looked_at: usize,
    /// It opens a session.
    opens: bool,
    /// Its session has no tag, and a worker may be about to name it.
    awaited: Option<SessionKey>,
    /// Its session belongs to this other host.
    elsewhere: Option<HostId>,
}

impl Found {
    /// The other host that its session belongs to.
    pub fn elsewhere(&self) -> Option<HostId> {
        self.elsewhere
    }

    /// How each criterion fared that was looked at, in their order: only the last one may have decided.
    pub fn outcomes(&self) -> &[Result<RouteBy, NoValue>] {
        &self.outcomes[..self.looked_at]
    }
}

impl Aims {
    /// What decides by a configuration. `key`: what tags are made with, and values are hashed with.
    pub fn new(config: &Config, key: &TagKey) -> Self {
        Self {
            affinity: config.affinity.clone(),
            tagger: Tagger::new(key).on(config.sessions.host_id.unwrap_or_default()),
            keys: ValueKeys::new(key),
            paths: config.sessions.paths.clone(),
            learns_paths: config.sessions.learns_paths(),
            sticky_paths: config.sessions.sticky_paths.clone(),
        }
    }

    /// Whether requests must be looked at.
    pub(super) fn needs_request(&self) -> bool {
        self.affinity.reads_requests() || !self.sticky_paths.is_empty()
    }

    /// Whether nothing can be decided by the request line alone.
    pub(super) fn begins_with_headers(&self) -> bool {
        self.affinity.criteria().first().is_some_and(Criterion::needs_headers)
    }

    /// Books for these criteria. What was counted of those that stay is kept.
    pub(super) fn books(&self, before: &mut Vec<CriterionCount>) {
        let criteria = self.affinity.criteria().iter().map(Criterion::to_string);
        let books = criteria.map(|criterion| {
            let kept = before.iter().find(|count| count.criterion == criterion).cloned();
            kept.unwrap_or(CriterionCount { criterion, ..CriterionCount::default() })
        });
        *before = books.collect();
    }

    /// Decides where the connection goes, by its first request. `has_headers`: whether no more of them are waited for.
    pub(super) fn take(
        &self,
        connection: &mut ClientConnection,
        request: &Request<'_>,
        has_headers: bool,
        counts: &mut PeekCounts,
        dispatch: &Dispatch,
    ) -> Aim {
        let found = self.find(request, has_headers, |it| dispatch.learnt(it), |sid| dispatch.owner_of(sid));
        let Some(found) = found else { return Aim::Headers };
        // Only now: what waits for headers is looked at again.
        for (count, outcome) in counts.criteria.iter_mut().zip(found.outcomes()) {
            *match outcome {
                Ok(_) => &mut count.decided,
                Err(NoValue::Absent) => &mut count.absent,
                Err(NoValue::TooLong) => &mut count.too_long,
            } += 1;
        }
        if let Some(host) = found.elsewhere {
            counts.other_hosts += 1;
            counts.hints.other_host(host);
        }
        connection.goal = found.goal;
        connection.key = found.key.unwrap_or(connection.key);
        found.awaited.map_or(Aim::Decided, Aim::AwaitingOwner)
    }

    /// Where a request leads by itself; none if headers that may decide are still to come. `learnt`: what workers have
    /// reported about its path. `owner_of`: finds the owner of a session without a tag.
    pub fn find(
        &self,
        request: &Request<'_>,
        has_headers: bool,
        learnt: impl Fn(&Request<'_>) -> Learnt,
        owner_of: impl Fn(&str) -> OwnerLookup,
    ) -> Option<Found> {
        let outcomes = [Err(NoValue::Absent); MAX_CRITERIA];
        let mut found = Found {
            goal: RouteBy::Address,
            key: None,
            outcomes,
            looked_at: 0,
            opens: false,
            awaited: None,
            elsewhere: None,
        };
        if !self.sticky_paths.is_empty() && !self.sticky_paths.iter().any(|path| request.is_below(path)) {
            found.goal = RouteBy::Load;
            return Some(found);
        }
        for criterion in self.affinity.criteria() {
            if criterion.needs_headers() && !has_headers {
                return None;
            }
            let outcome = match criterion {
                Criterion::Session => {
                    self.session(request, &learnt, &owner_of, &mut found).map(RouteBy::Session).ok_or(NoValue::Absent)
                }
                Criterion::Value(source) => source.value(request, &mut ValueRoom::new()).map(|value| {
                    found.key = Some(self.keys.key(value));
                    RouteBy::Value(source.kind())
                }),
            };
            found.outcomes[found.looked_at] = outcome;
            found.looked_at += 1;
            if let Ok(goal) = outcome {
                found.goal = goal;
                return Some(found);
            }
        }
        if found.opens && self.affinity.rest() == Rest::Unsaid {
            found.goal = RouteBy::RecentSessions;
        }
        Some(found)
    }

    /// The worker that has the request's session.
    fn session(
        &self,
        request: &Request<'_>,
        learnt: impl Fn(&Request<'_>) -> Learnt,
        owner_of: impl Fn(&str) -> OwnerLookup,
        found: &mut Found,
    ) -> Option<Tag> {
        let begins = match self.paths.iter().find(|path| request.is_below(path)) {
            Some(path) => request::is_at(request.path, path),
            None if !self.learns_paths => return None,
            None => match learnt(request) {
                Learnt::Nothing => return None,
                learnt => learnt == Learnt::Begins,
            },
        };
        let Some(sid) = request.sid() else {
            found.opens = request.method == "GET" && begins;
            return None;
        };
        // An id of the program's own making may have what must be escaped. Nothing is allocated where nothing is.
        let sid = percent_decode_str(sid).decode_utf8_lossy();
        match self.tagger.reading(sid.as_bytes()) {
            Reading::Here(_, tag) => return Some(tag),
            Reading::Elsewhere(host) => {
                found.elsewhere = Some(host);
                return None;
            }
            Reading::Untagged => {}
        }
        match owner_of(&sid) {
            OwnerLookup::Known(tag) => Some(tag),
            OwnerLookup::Awaited(key) => {
                found.awaited = Some(key);
                None
            }
            OwnerLookup::Unknown => None,
        }
    }
}

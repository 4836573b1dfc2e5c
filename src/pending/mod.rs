//! Connections whose first bytes must be seen before they can be assigned, and how long they wait for them.
//!
//! Nothing is consumed but a PROXY header. Most clients have sent their request by the time they are accepted, and are
//! assigned at once; the others wait here, each at the price of one entry and nothing else. A client that sends half a
//! line wakes the master once for what it sent (EPOLLET), never for what it did not.

pub mod aim;
pub mod counts;
pub mod hints;
mod unnamed;
mod verdict;
mod waiting;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub use self::counts::PeekCounts;
use self::unnamed::AwaitingOwner;
pub use self::verdict::Rules;
use self::verdict::{PeekVerdict, Progress};
use self::waiting::Waiting;
use crate::config::{Config, PeekTimeoutAction};
use crate::connection::{ClientConnection, RejectReason, RouteBy};
use crate::dispatch::Dispatch;
use crate::node::named::SessionKey;
use crate::peek::MAX_PEEKED;
use crate::sys::poller::{Interest, Poller, Ready};

/// Tokens from here on are connections that are looked at.
pub const FIRST_TOKEN: u64 = 1 << 62;

/// The part of all places that one client may have at most where descriptors limit them, and as many it may have anyway.
const SHARE: usize = 4;
const LEAST_SHARE: usize = 16;

/// What becomes of a connection that was looked at.
#[derive(Debug)]
pub enum Outcome {
    /// It can be assigned.
    Assign(ClientConnection),
    /// It is to be refused.
    Refuse(ClientConnection, RejectReason),
}

/// The connections that are looked at.
#[derive(Debug)]
pub struct Peeking {
    rules: Rules,
    wanted: bool,
    timeout: Duration,
    action: PeekTimeoutAction,
    /// The configured limit on waiting connections, and the limit that overrides it.
    most: (usize, usize),
    waiting: Waiting,
    /// Connections whose request was read, and whose session has no owner yet.
    unnamed: AwaitingOwner,
    room: Box<[u8]>,
    /// What was seen.
    pub counts: PeekCounts,
}

impl Peeking {
    /// Nothing waits yet. `most`: the limit that overrides the configured one.
    pub fn new(config: &Config, rules: Rules, most: usize) -> Self {
        let mut counts = PeekCounts::default();
        rules.keep_books(&mut counts);
        Self {
            timeout: config.first.timeout,
            action: config.first.timeout_action,
            most: (config.first.most, most),
            rules,
            wanted: config.peeks(),
            waiting: Waiting::new(),
            unnamed: AwaitingOwner::default(),
            room: vec![0; MAX_PEEKED].into(),
            counts,
        }
    }

    /// Applies another configuration, also to connections that wait already.
    pub fn reconfigure(&mut self, config: &Config, rules: Rules, most: usize) {
        // What was looked at was looked at with other eyes.
        self.waiting.progress_mut().for_each(Progress::look_anew);
        rules.keep_books(&mut self.counts);
        (self.rules, self.wanted) = (rules, config.peeks());
        (self.timeout, self.action) = match self.wanted {
            true => (config.first.timeout, config.first.timeout_action),
            // They have timed out already, so none is refused early.
            false => (Duration::ZERO, PeekTimeoutAction::HandOver),
        };
        self.most = (config.first.most, most);
    }

    /// Sets the limit that overrides the configured one.
    pub fn limit(&mut self, most: usize) {
        self.most.1 = most;
    }

    /// Whether clients that say nothing in time are refused.
    pub fn refuses(&self) -> bool {
        self.action == PeekTimeoutAction::Close
    }

    /// Whether connections are looked at.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.unnamed.len()
    }

    /// Looks at a connection that has just come. Yields what can be decided now: this one, or the one that has waited
    /// longest, where too many do.
    pub fn arrived(
        &mut self,
        mut connection: ClientConnection,
        dispatch: &Dispatch,
        poller: &Poller,
    ) -> Option<Outcome> {
        let mut progress = self.rules.begin(&connection);
        match self.rules.look_at(&mut connection, &mut progress, &mut self.room, &mut self.counts, dispatch) {
            PeekVerdict::Decided => return Some(self.decided(connection)),
            PeekVerdict::AwaitingOwner(key) => {
                let now = connection.accepted;
                return self.await_name(connection, key, now);
            }
            PeekVerdict::More => {}
        }
        let most = self.most.0.min(self.most.1).max(1);
        let is_crowded = self.waiting.len() >= most;
        let token = FIRST_TOKEN + self.waiting.next();
        // It fails for want of the kernel's memory only: then it is as if its time were over.
        if poller.add(connection.as_fd(), token, Interest::MoreToRead).is_err() {
            self.counts.crowded += 1;
            return Some(self.give_up(connection, &progress));
        }
        let is_one_client_s = !self.rules.trusts(&connection);
        self.waiting.push(connection, progress, is_one_client_s);
        if !is_crowded {
            return None;
        }
        // Where descriptors are short for all, those of a client with very many, handed over, would be the workers' shortage.
        let is_hoarded =
            self.most.1 < self.most.0 && self.waiting.of_the_oldest_client() > (most / SHARE).max(LEAST_SHARE);
        let (oldest, progress) = self.take_unseen(poller)?;
        self.counts.crowded += 1;
        match is_hoarded {
            true => Some(Outcome::Refuse(oldest, RejectReason::OverLimit)),
            false => Some(self.give_up(oldest, &progress)),
        }
    }

    /// Peeks again at a connection that the poller reported. A partial request of a client that has closed is not waited
    /// for.
    pub fn look(&mut self, news: Ready, dispatch: &Dispatch, poller: &Poller, now: Instant) -> Option<Outcome> {
        let key = news.token.checked_sub(FIRST_TOKEN)?;
        let (connection, progress) = self.waiting.get_mut(key)?;
        let verdict = self.rules.look_at(connection, progress, &mut self.room, &mut self.counts, dispatch);
        if verdict == PeekVerdict::More && !news.ended {
            return None;
        }
        self.counts.over += u64::from(verdict == PeekVerdict::More);
        let (mut connection, progress) = self.waiting.remove(key)?;
        forget(&connection, poller);
        match verdict {
            PeekVerdict::AwaitingOwner(session) => return self.await_name(connection, session, now),
            PeekVerdict::More => self.rules.give_up(&mut connection, &progress),
            PeekVerdict::Decided => {}
        }
        Some(self.decided(connection))
    }

    fn await_name(&mut self, connection: ClientConnection, session: SessionKey, now: Instant) -> Option<Outcome> {
        let connection = self.unnamed.push(connection, session, now)?;
        self.counts.unnamed += 1;
        Some(self.decided(connection))
    }

    /// Takes a connection whose session has got an owner, or that has waited for one long enough, if there is any.
    pub fn named(&mut self, now: Instant, dispatch: &Dispatch) -> Option<Outcome> {
        let connection = self.unnamed.settled(now, |key| dispatch.named(key))?;
        self.counts.unnamed += u64::from(!matches!(connection.goal, RouteBy::Session(_)));
        Some(self.decided(connection))
    }

    /// Takes a connection that has timed out, if there is any.
    pub fn expired(&mut self, now: Instant, poller: &Poller) -> Option<Outcome> {
        let oldest = self.waiting.oldest()?;
        if now.saturating_duration_since(oldest.accepted) < self.timeout {
            return None;
        }
        self.counts.timed_out += 1;
        let (connection, progress) = self.take_unseen(poller)?;
        Some(self.give_up(connection, &progress))
    }

    /// Takes one out, whatever it has sent: the master stops, or looks at connections no more.
    pub fn take_oldest(&mut self, poller: &Poller) -> Option<ClientConnection> {
        let Some((mut connection, progress)) = self.take_unseen(poller) else { return self.unnamed.pop() };
        self.rules.give_up(&mut connection, &progress);
        self.rules.may_serve(&mut connection, &mut self.counts);
        Some(connection)
    }

    /// The one that has waited longest for its first request.
    fn take_unseen(&mut self, poller: &Poller) -> Option<(ClientConnection, Progress)> {
        let (connection, progress) = self.waiting.remove_oldest()?;
        forget(&connection, poller);
        Some((connection, progress))
    }

    fn decided(&mut self, mut connection: ClientConnection) -> Outcome {
        match self.rules.may_serve(&mut connection, &mut self.counts) {
            true => Outcome::Assign(connection),
            false => Outcome::Refuse(connection, RejectReason::Unattributed),
        }
    }

    fn give_up(&mut self, mut connection: ClientConnection, progress: &Progress) -> Outcome {
        match self.action {
            PeekTimeoutAction::HandOver => {
                self.rules.give_up(&mut connection, progress);
                self.decided(connection)
            }
            PeekTimeoutAction::Close => Outcome::Refuse(connection, RejectReason::NoRequest),
        }
    }
}

/// It must not be waited for any more when it goes to another process: the open file lives on there.
fn forget(connection: &ClientConnection, poller: &Poller) {
    if let Err(error) = poller.remove(connection.as_fd()) {
        tracing::error!(%error, "a connection cannot be taken out of the poller");
    }
}

#[cfg(test)]
mod tests;

//! Goodbyes: a worker that leaves ends its sessions one by one, so that their clients do not all come back in the same
//! second.

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::drain::Drain;
use super::pace::Pace;

impl Drain {
    /// Ends sessions one by one, evenly spread over the time that the worker has for that: a ninth of the time to
    /// linger, or the drain time. (Within a second or less it ends all at once. When the master has died, sessions are
    /// left alone for half of the time.) To be run beside the server from its start; returns when the worker is to
    /// finish and no session is left to be ended.
    ///
    /// `open` lists the sessions that are still to be ended. It is asked again after each round, and when the master gives
    /// another time: a session that has ended by itself leaves its moment unused, and the others are ended no later.
    /// `end` ends one.
    pub async fn goodbyes<T>(&mut self, mut open: impl FnMut() -> Vec<T>, mut end: impl FnMut(T)) {
        let mut changes = self.pace.clone();
        // An error means that the Incoming was dropped without a word from the master: there is nothing left to end.
        'paces: while let Some(pace) = changes.wait_for(Option::is_some).await.ok().and_then(|pace| *pace) {
            changes.mark_unchanged();
            if changed_before(&mut changes, pace.from).await {
                continue;
            }
            loop {
                let sent = open();
                if sent.is_empty() {
                    break;
                }
                let (start, count) = (Instant::now(), u32::try_from(sent.len()).unwrap_or(u32::MAX));
                let span = pace.until.saturating_duration_since(start);
                for (number, one) in (0..).zip(sent) {
                    if changed_before(&mut changes, start + span * number / count).await {
                        continue 'paces;
                    }
                    end(one);
                }
            }
            if pace.last || changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Waits for the moment. `true`: the master has given another time before it.
async fn changed_before(changes: &mut watch::Receiver<Option<Pace>>, moment: Instant) -> bool {
    tokio::select! {
        biased;
        Ok(()) = changes.changed() => true,
        () = sleep_until(moment) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::super::drain::DrainSource;
    use super::super::pace::SHORT;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    type Shared<T> = Arc<Mutex<Vec<T>>>;

    /// Five sessions, and the second from now at which each was ended.
    fn five(mut drain: Drain) -> (Shared<u32>, Shared<u64>, tokio::task::JoinHandle<()>) {
        let open = Arc::new(Mutex::new((0..5).collect::<Vec<u32>>()));
        let moments = Arc::new(Mutex::new(Vec::new()));
        let (sessions, sent, start) = (Arc::clone(&open), Arc::clone(&moments), Instant::now());
        let saying = tokio::spawn(async move {
            let end = |session| {
                sessions.lock().expect("sessions").retain(|other| *other != session);
                sent.lock().expect("moments").push(start.elapsed().as_secs());
            };
            drain.goodbyes(|| sessions.lock().expect("sessions").clone(), end).await;
        });
        (open, moments, saying)
    }

    fn sent(moments: &Mutex<Vec<u64>>) -> Vec<u64> {
        moments.lock().expect("moments").clone()
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_ended_evenly_over_most_of_the_time() {
        let source = DrainSource::new();
        let (_, moments, saying) = five(source.subscribe());
        tokio::time::sleep(MINUTE).await;
        assert!(sent(&moments).is_empty(), "no goodbye was sent");
        source.request(Some(MINUTE / 12 * 10));
        saying.await.expect("task");
        assert_eq!(sent(&moments), [60, 68, 76, 84, 92]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_lingers_leaves_them_alone_for_most_of_the_time_and_waits_for_the_end() {
        let source = DrainSource::new();
        let (_, moments, saying) = five(source.subscribe());
        source.linger(MINUTE * 9);
        tokio::time::sleep(MINUTE * 9).await;
        assert_eq!(sent(&moments), [475, 487, 499, 511, 523], "the clients have five seconds to come once more");
        assert!(!saying.is_finished());
        source.request(Some(MINUTE));
        saying.await.expect("task");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_time_that_comes_later_holds_and_a_longer_one_does_not() {
        let source = DrainSource::new();
        let mut drain = source.subscribe();
        let (_, moments, saying) = five(source.subscribe());
        source.request(Some(MINUTE * 10));
        tokio::time::sleep(Duration::from_secs(100)).await;
        source.request(Some(MINUTE * 60));
        assert_eq!(drain.requested().await, Some(MINUTE * 10 - Duration::from_secs(100)));
        source.request(Some(SHORT));
        saying.await.expect("task");
        assert_eq!(sent(&moments), [0, 96, 100, 100, 100]);
        drain.expired().await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_ends_by_itself_leaves_its_moment_and_the_end_comes_when_all_are_gone() {
        let source = DrainSource::new();
        let (open, moments, saying) = five(source.subscribe());
        source.master_gone(Some(MINUTE * 20));
        tokio::time::sleep(MINUTE * 11).await;
        open.lock().expect("sessions").clear();
        saying.await.expect("task");
        assert_eq!(sent(&moments)[0], 600, "half of the time they were left alone");
    }
}

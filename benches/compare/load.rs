//! The load: crowds of clients, bounded in number and in time, and how long each of them waited.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::task::{JoinSet, LocalSet};

use crate::client::{self, Held, PATIENCE, Target, WebSocket};
use crate::process::{is_stopped, send, until};
use crate::session::session;
use crate::{Failure, Outcome};

/// No load takes longer, whatever happens.
const LIMIT: Duration = Duration::from_secs(60);
/// How many clients open WebSockets at once.
const OPENING: usize = 64;
/// Who has no WebSocket after this long counts as lost.
const TO_OPEN: Duration = Duration::from_secs(5);

/// What came of many questions.
#[derive(Debug)]
pub struct Answers {
    pub elapsed: Duration,
    /// How long each took.
    pub times: Vec<Duration>,
}

impl Answers {
    pub fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The time in microseconds within which this share of them came.
    pub fn within(&mut self, share: f64) -> f64 {
        self.times.sort_unstable();
        let index = (self.times.len() as f64 * share) as usize;
        self.times.get(index.min(self.times.len().saturating_sub(1))).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    }
}

/// How many clients at once, on how many threads.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    pub clients: usize,
    pub threads: usize,
}

/// That many requests, each over a connection of its own.
pub fn requests(target: &Target, crowd: Crowd, count: usize) -> Outcome<Answers> {
    by_crowd(target, crowd, count, |target| async move { within(client::ask(&target)).await.map(Some) })
}

/// That many sessions of Socket.IO, and how many of them did not come about: without stickiness most do not.
pub fn sessions(target: &Target, crowd: Crowd, count: usize) -> Outcome<(Answers, Lost)> {
    let answers = by_crowd(target, crowd, count, |target| async move { Ok(within(session(&target)).await.ok()) })?;
    let lost = count - answers.times.len();
    Ok((answers, lost))
}

/// That many times `once`, by the clients of a crowd in turns. It yields how long it took, or nothing.
fn by_crowd<F>(
    target: &Target,
    crowd: Crowd,
    count: usize,
    once: impl Fn(Arc<Target>) -> F + Copy + Send + 'static,
) -> Outcome<Answers>
where
    F: Future<Output = Outcome<Option<Duration>>> + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let target = Arc::new(target.clone());
    let begun = Instant::now();
    let times = run(crowd.threads, vec![(); crowd.clients], move |()| {
        let (next, target) = (Arc::clone(&next), Arc::clone(&target));
        async move {
            let mut times = Vec::with_capacity(count / crowd.clients * 2);
            while next.fetch_add(1, Ordering::Relaxed) < count {
                times.extend(once(Arc::clone(&target)).await?);
            }
            Ok(times)
        }
    })?;
    Ok(Answers { elapsed: begun.elapsed(), times: times.into_iter().flatten().collect() })
}

/// Requests as above, one after the other.
pub fn requests_one_by_one(target: &Target, count: usize) -> Outcome<Answers> {
    let begun = Instant::now();
    let mut times = Vec::with_capacity(count);
    while times.len() < count && begun.elapsed() < LIMIT {
        times.push(client::ask_blocking(target)?);
    }
    Ok(Answers { elapsed: begun.elapsed(), times })
}

/// Those of a number of clients that were not served.
pub type Lost = usize;

/// That many clients connect and ask while the processes that would accept stand still; `go` is called when all wait in the
/// kernel's queue, then the processes go on. Returns when each has its answer or is lost.
pub fn requests_waiting<T>(
    target: &Target,
    accepting: &[i32],
    count: usize,
    go: impl FnOnce() -> Outcome<T>,
) -> Outcome<(T, Lost)> {
    let all = |signal| accepting.iter().try_for_each(|pid| send(*pid, signal));
    all(Signal::SIGSTOP)?;
    let waiting = if until(PATIENCE, || accepting.iter().all(|pid| is_stopped(*pid))) {
        (0..count).map(|_| client::begin_blocking(target)).collect::<Outcome<Vec<_>>>()
    } else {
        Err("a process does not stop".into())
    };
    let told = go();
    all(Signal::SIGCONT)?;
    let (begun, mut lost) = (Instant::now(), 0);
    for stream in waiting? {
        lost += usize::from(client::finish_blocking(stream).is_err());
        if begun.elapsed() > LIMIT {
            return Err("they wait for too long".into());
        }
    }
    Ok((told?, lost))
}

/// That many WebSockets. Who is lost tries again, but if more than one of twenty is, it fails.
pub fn hold(target: &Target, threads: usize, count: usize) -> Outcome<(Vec<Held>, Lost)> {
    let (next, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (all_lost, target) = (Arc::clone(&lost), target.clone());
    let held = run(threads, vec![(); OPENING.min(count)], move |()| {
        let (next, lost, target) = (Arc::clone(&next), Arc::clone(&lost), target.clone());
        async move {
            let mut held = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < count {
                loop {
                    match open(&target).await {
                        Ok(socket) => break held.push(socket.hold()?),
                        Err(error) if lost.fetch_add(1, Ordering::Relaxed) >= count / 20 => return Err(error),
                        Err(_) => {}
                    }
                }
            }
            Ok(held)
        }
    })?;
    Ok((held.into_iter().flatten().collect(), all_lost.load(Ordering::Relaxed)))
}

async fn open(target: &Target) -> Outcome<WebSocket> {
    tokio::time::timeout(TO_OPEN, WebSocket::open(target)).await.map_err(|_| "a WebSocket did not open")?
}

/// A WebSocket for each client, the same number of them at each worker: who is at a full one, or lost, comes again as
/// another client.
pub fn seat(target: &Target, crowd: Crowd, workers: usize) -> Outcome<Vec<Held>> {
    let taken = Arc::new(Mutex::new(HashMap::<i32, usize>::new()));
    let target = target.clone();
    let seats = crowd.clients.div_ceil(workers);
    run(crowd.threads, vec![(); crowd.clients], move |()| {
        let (taken, target) = (Arc::clone(&taken), target.clone());
        async move {
            let mut why = Failure::from("the balancer does not use all workers");
            for _ in 0..50 * workers {
                let socket = match open(&target).await {
                    Ok(socket) => socket,
                    Err(error) => {
                        why = error;
                        continue;
                    }
                };
                let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
                let here = taken.entry(socket.worker).or_default();
                if *here < seats {
                    *here += 1;
                    return socket.hold();
                }
            }
            Err(why)
        }
    })
}

/// All of them ask over and over again for so long, each with one question at a time.
pub fn echo(sockets: Vec<Held>, threads: usize, duration: Duration) -> Outcome<Answers> {
    let begun = Instant::now();
    let times = run(threads, sockets, move |held: Held| async move {
        let mut socket = held.resume()?;
        let mut times = Vec::with_capacity(16_384);
        while begun.elapsed() < duration {
            let asked = Instant::now();
            within(socket.echo()).await?;
            times.push(asked.elapsed());
        }
        Ok(times)
    })?;
    Ok(Answers { elapsed: begun.elapsed(), times: times.into_iter().flatten().collect() })
}

async fn within<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::time::timeout(PATIENCE, work).await.map_err(|_| "a client waited in vain")?
}

/// A client for each item, on so many threads with a runtime each. The first failure ends all of that thread.
fn run<I, T, F>(threads: usize, items: Vec<I>, client: impl Fn(I) -> F + Clone + Send + 'static) -> Outcome<Vec<T>>
where
    I: Send + 'static,
    T: Send + 'static,
    F: Future<Output = Outcome<T>> + 'static,
{
    let mut shares: Vec<Vec<I>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, item) in items.into_iter().enumerate() {
        shares[index % threads].push(item);
    }
    let threads: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let client = client.clone();
            thread::spawn(move || -> Outcome<Vec<T>> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                LocalSet::new().block_on(&runtime, async {
                    let mut running = JoinSet::new();
                    for item in share {
                        running.spawn_local(client(item));
                    }
                    let all = async {
                        let mut results = Vec::new();
                        while let Some(result) = running.join_next().await {
                            results.push(result??);
                        }
                        Ok(results)
                    };
                    tokio::time::timeout(LIMIT, all).await.map_err(|_| "the load took too long")?
                })
            })
        })
        .collect();
    let mut results = Vec::new();
    for thread in threads {
        results.extend(thread.join().map_err(|_| "a client panicked")??);
    }
    Ok(results)
}

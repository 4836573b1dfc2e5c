//! Whether the master's cost per connection grows: with the number of workers, once with as many clients in all and once
//! with as many for each worker, and with that of held connections.

use serde_json::{Value, json};

use crate::Outcome;
use crate::contender::{self, Contender, Programs, Unstarted};
use crate::load::{self, Crowd};
use crate::measure::{Amounts, FULL};
use crate::noise::calibrate;
use crate::process::{cpu, memory};

const WORKERS: [usize; 6] = [1, 2, 4, 8, 16, 64];
/// Connections held, of the most in a full run.
const HELD: [usize; 3] = [0, 1_000, 9_000];
/// Workers while connections are held.
const WORKERS_THAT_HOLD: usize = 2;

/// One point of one of the curves.
#[derive(Debug, Clone, Copy)]
struct Point {
    by: &'static str,
    workers: usize,
    clients: usize,
    held: usize,
}

impl Point {
    /// Where it is on its curve.
    fn at(&self) -> usize {
        if self.by == "held" { self.held } else { self.workers }
    }
}

/// Measures all points in each round, in turns; gives `[{ by, at, rounds: [{ balancer_us, ... }] }]` and the times of the
/// calibrations.
pub fn measure(programs: &Programs, amounts: &Amounts, crowd: Crowd, rounds: usize) -> Outcome<(Value, Vec<f64>)> {
    let most = amounts.held;
    let of = crowd.clients;
    let in_all = WORKERS.map(|workers| Point { by: "workers", workers, clients: of, held: 0 });
    let for_each = WORKERS.map(|workers| Point { by: "load", workers, clients: of * workers, held: 0 });
    let by_held =
        HELD.map(|held| Point { by: "held", workers: WORKERS_THAT_HOLD, clients: of, held: held * most / FULL.held });
    let points: Vec<Point> = in_all.into_iter().chain(for_each).chain(by_held).collect();
    let mut found: Vec<Vec<Value>> = vec![Vec::new(); points.len()];
    let mut calibrations = Vec::new();
    let haft = contender::ALL.first().ok_or("no contender")?;
    for round in 0..rounds {
        for turn in 0..points.len() {
            let index = (round + turn) % points.len();
            calibrations.push(calibrate());
            let figures = point(haft, programs, amounts, crowd, points[index])?;
            eprintln!("round {}: {:?}: {figures}", round + 1, points[index]);
            found[index].push(figures);
        }
    }
    let series = points
        .iter()
        .zip(found)
        .map(|(point, rounds)| json!({ "by": point.by, "at": point.at(), "clients": point.clients, "rounds": rounds }));
    Ok((series.collect(), calibrations))
}

fn point(haft: &Contender, programs: &Programs, amounts: &Amounts, crowd: Crowd, point: Point) -> Outcome<Value> {
    let running = haft.start(programs, point.workers).map_err(|unstarted| match unstarted {
        Unstarted::NotAvailable(reason) => reason.into(),
        Unstarted::Failed(error) => error,
    })?;
    let crowd = Crowd { clients: point.clients, ..crowd };
    let (held, _) = load::hold(&running.target, crowd.threads, point.held)?;
    load::requests(&running.target, crowd, amounts.warm_up)?;
    let before = [cpu(&running.balancer)?, cpu(&running.workers)?];
    let answers = load::requests(&running.target, crowd, amounts.connections)?;
    let after = [cpu(&running.balancer)?, cpu(&running.workers)?];
    let each = |index: usize| (after[index] - before[index]) as f64 / 1e3 / answers.times.len() as f64;
    let resident = memory(&running.balancer)?;
    let open = held.iter().filter(|socket| socket.is_open()).count();
    if open < point.held {
        return Err(format!("of {} WebSockets {open} stayed open", point.held).into());
    }
    Ok(json!({
        "balancer_us": each(0), "workers_us": each(1), "rate": answers.per_second(),
        "rss_kib": resident.rss, "pss_kib": resident.pss,
    }))
}

//! Whether the master's cost per connection grows: with the number of workers, and with that of held connections.

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
    held: usize,
}

/// Measures all points in each round, in turns; gives `[{ by, at, rounds: [{ balancer_us, ... }] }]` and the times of the
/// calibrations.
pub fn measure(programs: &Programs, amounts: &Amounts, crowd: Crowd, rounds: usize) -> Outcome<(Value, Vec<f64>)> {
    let most = amounts.held;
    let by_workers = WORKERS.map(|workers| Point { by: "workers", workers, held: 0 });
    let by_held = HELD.map(|held| Point { by: "held", workers: WORKERS_THAT_HOLD, held: held * most / FULL.held });
    let points: Vec<Point> = by_workers.into_iter().chain(by_held).collect();
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
    let series = points.iter().zip(found).map(|(point, rounds)| {
        let at = if point.by == "held" { point.held } else { point.workers };
        json!({ "by": point.by, "at": at, "rounds": rounds })
    });
    Ok((series.collect(), calibrations))
}

fn point(haft: &Contender, programs: &Programs, amounts: &Amounts, crowd: Crowd, point: Point) -> Outcome<Value> {
    let running = haft.start(programs, point.workers).map_err(|unstarted| match unstarted {
        Unstarted::NotAvailable(reason) => reason.into(),
        Unstarted::Failed(error) => error,
    })?;
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

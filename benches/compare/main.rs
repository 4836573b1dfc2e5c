//! The comparison: haft beside everything that people use in its place, measured in turns in one run.
//!
//! ```text
//! bash tests/bench/run.sh [--quick]     installs what is missing, builds, runs this, writes tables and charts
//! bash tests/bench/run.sh growth
//! ```
//!
//! This program starts each contender, loads it over loopback from many addresses, bounded in number and time, and writes
//! what it measured as JSON. It judges nothing but that everything could be measured. It is also the minimal worker.

mod client;
mod contender;
mod growth;
mod load;
mod measure;
mod noise;
mod process;
mod proxy;
mod session;
mod syscalls;
mod wakeup;
mod worker;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use contender::{Contender, Programs, Unstarted};
use load::Crowd;
use measure::{Amounts, FULL, Figures, QUICK};
use syscalls::Tool;

type Failure = Box<dyn Error + Send + Sync>;
type Outcome<T> = Result<T, Failure>;

/// Clients at once.
const CLIENTS: usize = 64;

#[derive(Debug, Parser)]
struct Words {
    #[command(subcommand)]
    order: Option<Order>,
    /// Cargo says so to each benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Measures every contender
    Compare(Settings),
    /// Measures haft's master with more and more workers and held connections
    Growth(Settings),
    /// Is a worker: of haft, or at an address that others may share
    Worker { place: String },
}

#[derive(Debug, Clone, Parser)]
struct Settings {
    /// A minute that shows that all can be measured
    #[arg(long)]
    quick: bool,
    /// Each contender is measured once in each [default: 4; quick: 1]
    #[arg(long)]
    rounds: Option<usize>,
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Threads of the load generator
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Connections of 64 clients in each turn
    #[arg(long)]
    connections: Option<usize>,
    /// WebSockets to hold
    #[arg(long)]
    held: Option<usize>,
    /// Only rows whose key contains one of these words, or is exactly the word after an =
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the results go
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Settings {
    fn amounts(&self) -> Outcome<Amounts> {
        let mut amounts = if self.quick { QUICK } else { FULL };
        amounts.connections = self.connections.unwrap_or(amounts.connections);
        amounts.held = self.held.unwrap_or(amounts.held).min(proxy::capacity()?);
        Ok(amounts)
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 4 })
    }

    fn crowd(&self) -> Crowd {
        Crowd { clients: CLIENTS, threads: self.threads }
    }
}

fn main() -> ExitCode {
    match obey() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn obey() -> Outcome<()> {
    let words = Words::parse();
    let settings = match words.order {
        Some(Order::Worker { place }) if place == "haft" => return worker::work(worker::Source::Haft),
        Some(Order::Worker { place }) => return worker::work(worker::Source::Own(place.parse()?)),
        Some(Order::Growth(settings)) => return run(&settings, growth),
        Some(Order::Compare(settings)) => settings,
        // As `cargo bench` starts it, it only shows that it works.
        None => Settings { quick: true, ..Settings::parse_from([""]) },
    };
    run(&settings, compare)
}

/// Runs one of the two kinds of measurement, and writes what it gives, with the machine and its noise.
fn run(settings: &Settings, measure: fn(&Settings, &Programs) -> Outcome<Measured>) -> Outcome<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    process::end_on_signals()?;
    let programs = Programs::find()?;
    let begun = Instant::now();
    let (load, stolen) = (noise::load_average(), noise::stolen());
    let Measured { mut results, calibrations, failures } = measure(settings, &programs)?;
    let now = noise::stolen();
    results["machine"] = noise::machine(&programs);
    results["noise"] = json!({
        "calibration_ms": calibrations,
        "load_average_before": load,
        "stolen_share": (now.0 - stolen.0) as f64 / (now.1 - stolen.1).max(1) as f64,
    });
    results["settings"] = json!({
        "quick": settings.quick, "rounds": settings.rounds(), "workers": settings.workers, "clients": CLIENTS,
        "threads": settings.threads, "connections": settings.amounts()?.connections,
        "single": settings.amounts()?.single, "seconds": begun.elapsed().as_secs(),
    });
    let text = serde_json::to_string_pretty(&results)?;
    match &settings.json {
        Some(path) => fs::write(path, text)?,
        None => println!("{text}"),
    }
    if failures.is_empty() { Ok(()) } else { Err(format!("not measured: {}", failures.join(", ")).into()) }
}

struct Measured {
    results: Value,
    calibrations: Vec<f64>,
    failures: Vec<String>,
}

/// What is known of one contender.
struct Record<'a> {
    contender: &'a Contender,
    /// Why it is not measured.
    absent: Option<String>,
    rounds: Vec<Figures>,
}

fn compare(settings: &Settings, programs: &Programs) -> Outcome<Measured> {
    let folder = tempfile::tempdir()?;
    let tool = Tool::choose(folder.path());
    let is_meant = |key: &str, part: &str| part.strip_prefix('=').map_or(key.contains(part), |whole| key == whole);
    let wanted = |key: &str| settings.only.is_empty() || settings.only.iter().any(|part| is_meant(key, part));
    let listed = contender::ALL.iter().filter(|contender| wanted(contender.key));
    let mut records: Vec<_> = listed.map(|contender| Record { contender, absent: None, rounds: Vec::new() }).collect();
    let (mut calibrations, mut failures) = (Vec::new(), Vec::new());
    let (all, mut wakeups) = (records.len(), Vec::new());
    for round in 0..settings.rounds() {
        wakeups.extend(wakeup::across_cpus()?);
        for turn in 0..all {
            // Each round begins with another, and every other round goes the other way round.
            let place = if round % 2 == 0 { turn } else { all - 1 - turn };
            let record = &mut records[(place + round * all / settings.rounds()) % all];
            if record.absent.is_some() {
                continue;
            }
            calibrations.push(noise::calibrate());
            let (key, begun) = (record.contender.key, Instant::now());
            let shape = (settings.crowd(), settings.workers);
            match measure::turn(record.contender, programs, tool.as_ref().ok().copied(), &settings.amounts()?, shape) {
                Ok(figures) => {
                    eprintln!("round {}: {key:<22} {}", round + 1, line(&figures, begun));
                    record.rounds.push(figures);
                }
                Err(Unstarted::NotAvailable(reason)) => {
                    eprintln!("round {}: {key:<22} not available: {reason}", round + 1);
                    record.absent = Some(reason);
                }
                Err(Unstarted::Failed(error)) => {
                    eprintln!("round {}: {key:<22} FAILED: {error}", round + 1);
                    failures.push(format!("{key} (round {})", round + 1));
                }
            }
        }
    }
    let contenders = records.iter().map(|record| {
        json!({
            "key": record.contender.key, "name": record.contender.name, "worker": record.contender.worker.key(),
            "absent": record.absent, "rounds": record.rounds,
        })
    });
    let results = json!({
        "kind": "compare",
        "wakeup_us": wakeups,
        "contenders": contenders.collect::<Vec<_>>(),
        "syscalls_by": tool.as_ref().ok().map(|tool| tool.name()),
        "no_syscalls": tool.err(),
    });
    Ok(Measured { results, calibrations, failures })
}

/// A turn in a line, for who watches.
fn line(figures: &Figures, begun: Instant) -> String {
    let of = |name| figures.get(name).copied().unwrap_or(f64::NAN);
    let balancer = figures.get("balancer_us").map_or("no balancer".to_owned(), |cpu| format!("balancer {cpu:5.1} us"));
    format!(
        "{:6.0}/s, {balancer:<17}, workers {:5.1} us, p50 {:4.0} us at one client, {:7.0} echoes/s ({:.1} s)",
        of("rate"),
        of("workers_us"),
        of("p50_1_us"),
        of("echo_rate"),
        begun.elapsed().as_secs_f64()
    )
}

fn growth(settings: &Settings, programs: &Programs) -> Outcome<Measured> {
    let (points, calibrations) = growth::measure(programs, &settings.amounts()?, settings.crowd(), settings.rounds())?;
    Ok(Measured { results: json!({ "kind": "growth", "points": points }), calibrations, failures: Vec::new() })
}

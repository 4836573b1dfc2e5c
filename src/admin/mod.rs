//! What people and machines may see of a running master (metrics, status, health), and what they may change.
//!
//! The master owns every number. For each request this folder asks it, through [`Control`], for one [`Snapshot`] taken
//! at one instant, and renders that: so the numbers of one answer always fit each other, and nothing is counted twice.
//!
//! | path | content |
//! |---|---|
//! | `/metrics` | the numbers, for Prometheus (text format 0.0.4, or OpenMetrics 1.0.0 if the client prefers it) |
//! | `/status` | the same and more, as JSON |
//! | `/healthz` | 200 as long as the master's loop answers |
//! | `/logs?slot=K&after=N` | the last lines that workers wrote, as text or JSON: only for callers that may change something |
//! | `/` | a page for browsers, live; for others the list of paths |
//! | `/events` | the status each second, as server-sent events |
//! | `/session?sid=SID` | whether this haft has signed the tag of a session id, as JSON: for the same as `/logs` |
//! | `/trace?slot=K&client=CIDR&one_in=N` | connections, as they are delivered or refused: for the same as `/logs` |
//! | `/readyz` | 200 if a new connection would find a worker, else 503 and why |
//!
//! | `POST /reload` | replaces the workers, slot by slot |
//! | `POST /scale?workers=N` | changes the number of slots |
//! | `POST /drain?slot=K`, `/undrain?slot=K` | gives a slot no new connections, or some again |
//! | `POST /restart?slot=K` | gives a slot, or without `slot` each, a new worker of the same version |
//! | `POST /stop` | ends haft as SIGTERM does |
//!
//! Any caller that can connect may read; only those that `guard` lets pass may change something. A change is the
//! master's to make: nothing here touches its state. This folder never binds a socket, never reads `/proc`, and never
//! answers with more than the snapshot holds.

mod action;
mod alarm_status;
mod answer;
mod audit;
mod change;
mod control;
mod families;
pub mod figures;
mod guard;
mod live;
mod logs;
mod metrics;
mod negotiate;
mod page;
mod pages;
mod places;
mod routing;
mod server;
mod session;
mod snapshot;
pub mod socket;
mod token;
mod trace;
mod usage;

#[cfg(test)]
mod example;
#[cfg(test)]
mod exposition;

pub use alarm_status::AlarmStatus;
pub use change::{Change, ControlError, Denied};
pub use control::{Control, ControlRequest, LinesWanted, LogLine, channel};
pub use metrics::encode;
pub use negotiate::Format;
pub use routing::{CriterionFigures, RoutingFigures};
pub use server::{AdminListener, serve};
pub use snapshot::{
    ControlCounts, DrainingWorker, ExitStatus, ReloadState, ReloadStatus, SlotBalance, SlotStatus, Snapshot,
    WorkerStage,
};
pub use token::{TokenFile, TokenFileError};

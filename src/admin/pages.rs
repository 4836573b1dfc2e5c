//! The pages: which there are, and how each shows a snapshot. No socket, no clock.

use std::fmt::Write;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::action::ControlAction;
use super::answer::{Answer, answer, plain};
use super::change::ControlError;
use super::live;
use super::logs;
use super::metrics;
use super::negotiate::Format;
use super::page;
use super::session;
use super::snapshot::{SlotStatus, Snapshot};
use super::trace;

/// All that a page may be asked with.
const METHODS: &str = "GET, HEAD";

/// A page that needs to know the master's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AdminPage {
    Metrics,
    Status,
    Healthz,
    Readyz,
}

/// What a request asks for, judged by its head alone.
#[derive(Debug)]
pub(super) enum Wanted {
    Page(AdminPage),
    /// A change, if the asker may.
    Change(ControlAction),
    /// What workers wrote, if the caller may: it may hold secrets.
    Logs,
    /// What becomes of connections, if the asker may.
    Trace,
    /// Whether a session is of this haft, if the caller may ask: the answer tells what a forger wants to know.
    Session,
    /// The status, again and again.
    Events,
    /// The answer does not depend on the master.
    Already(Answer),
}

impl AdminPage {
    const ALL: [Self; 4] = [Self::Metrics, Self::Status, Self::Healthz, Self::Readyz];

    const fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/metrics",
            Self::Status => "/status",
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
        }
    }

    /// Whether it shows the workers' processes.
    pub(super) const fn needs_figures(self) -> bool {
        matches!(self, Self::Metrics | Self::Status)
    }

    const fn about(self) -> &'static str {
        match self {
            Self::Metrics => "counters and gauges, for Prometheus",
            Self::Status => "the master and its slots, as JSON",
            Self::Healthz => "200 as long as the master lives",
            Self::Readyz => "200 if a new connection would find a worker, else 503 and why",
        }
    }
}

/// Judges a request. `has_body`: whether it announces a body, which nothing here takes.
pub(super) fn wanted(method: &Method, path: &str, headers: &HeaderMap, has_body: bool) -> Wanted {
    if let Some(action) = ControlAction::from_path(path) {
        return action.refuse_method(method).map_or(Wanted::Change(action), Wanted::Already);
    }
    let page = AdminPage::ALL.into_iter().find(|page| page.path() == path);
    let asset = page::asset(path);
    if page.is_none() && asset.is_none() && !["/", logs::PATH, live::EVENTS, session::PATH, trace::PATH].contains(&path)
    {
        let text = format!("There is nothing here. The paths are:\n\n{}", list());
        return Wanted::Already(plain(StatusCode::NOT_FOUND, text));
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, format!("This path answers {METHODS}.\n"));
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
        return Wanted::Already(answer);
    }
    if has_body {
        return Wanted::Already(refuse_body());
    }
    match (page, asset) {
        (Some(page), _) => Wanted::Page(page),
        (None, Some(asset)) => Wanted::Already(asset),
        (None, None) if path == logs::PATH => Wanted::Logs,
        (None, None) if path == trace::PATH => Wanted::Trace,
        (None, None) if path == session::PATH => Wanted::Session,
        (None, None) if path == live::EVENTS => Wanted::Events,
        (None, None) => {
            let mut answer = if page::is_for(headers) { page::page() } else { plain(StatusCode::OK, index()) };
            answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
            Wanted::Already(answer)
        }
    }
}

/// The answer to a request with a body.
pub(super) fn refuse_body() -> Answer {
    plain(StatusCode::PAYLOAD_TOO_LARGE, "A request to this path has no body.\n".to_owned())
}

/// Renders a page from what the master answered. `asked`: the request's headers.
pub(super) fn render(page: AdminPage, asked: &HeaderMap, now: Result<Snapshot, ControlError>) -> Answer {
    let now = match now {
        Ok(now) => now,
        Err(error) => return plain(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    };
    match page {
        AdminPage::Metrics => metrics_page(asked, now),
        AdminPage::Status => status_page(&now),
        AdminPage::Healthz => plain(StatusCode::OK, "ok\n".to_owned()),
        AdminPage::Readyz => {
            let status = if now.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            plain(status, readiness(&now))
        }
    }
}

fn metrics_page(asked: &HeaderMap, now: Snapshot) -> Answer {
    let format = Format::asked_for(asked);
    let mut answer = match metrics::encode(now, format) {
        Ok(text) => answer(StatusCode::OK, format.content_type(), text.into()),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    answer
}

fn status_page(now: &Snapshot) -> Answer {
    match serde_json::to_vec_pretty(now) {
        Ok(mut json) => {
            json.push(b'\n');
            answer(StatusCode::OK, "application/json", json.into())
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// The text of `/readyz`: the verdict, then each slot that is not ready.
fn readiness(now: &Snapshot) -> String {
    let ready = now.slots.iter().filter(|slot| slot.takes_clients()).count();
    let verdict = match (now.is_ready(), now.stopping) {
        (true, _) => "ready",
        (false, true) => "not ready, the master is stopping",
        (false, false) if now.lacks_link() => "not ready, the link to Redis is broken",
        (false, false) => "not ready",
    };
    let mut text = format!("{verdict}: {ready} of {} slots ready\n", now.slots.len());
    for slot in now.slots.iter().filter(|slot| !slot.takes_clients()) {
        describe(&mut text, slot);
    }
    text
}

fn describe(text: &mut String, slot: &SlotStatus) {
    // Writing into a string does not fail.
    let _ = write!(text, "slot {}: {}", slot.slot, slot.state.name());
    for (is_so, word) in [
        (slot.hung, ", hung"),
        (slot.drained, ", drained"),
        (slot.kept_out, ", kept out since its workers ended too often"),
        (slot.listens_on_nothing, ", its program has closed all of its servers"),
    ] {
        text.push_str(if is_so { word } else { "" });
    }
    if let Some(exit) = &slot.last_exit {
        let _ = write!(text, ", last exit: {}", exit.description);
    }
    text.push('\n');
}

fn index() -> String {
    format!("haft {}\n\n{}", env!("CARGO_PKG_VERSION"), list())
}

fn list() -> String {
    let pages = AdminPage::ALL.map(|page| (page.path(), page.about()));
    let actions = ControlAction::ALL.map(|action| (action.usage(), action.about()));
    let others = [
        (logs::USAGE, "the last lines that workers wrote, for callers that may change something"),
        (trace::USAGE, "connections as they are delivered or refused, for the same callers"),
        (session::USAGE, "whether this haft has signed the tag of a session id, for the same callers"),
        (live::EVENTS, "the status each second, as server-sent events; a browser has a page of them at /"),
    ];
    pages.into_iter().chain(others).chain(actions).map(|(path, about)| format!("{path:24}{about}\n")).collect()
}

//! What changes something: which paths there are, what each takes, and how it is answered. No socket, no clock.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::answer::{Answer, answer, plain};
use super::change::{Change, ControlError, Denied};
use super::negotiate;
use crate::config::MAX_WORKERS;

/// The only method: GET must change nothing (RFC 9110, section 9.2.1).
const METHOD: &str = "POST";

/// A path that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ControlAction {
    Reload,
    Scale,
    Drain,
    Undrain,
    Restart,
    Stop,
}

impl ControlAction {
    pub(super) const ALL: [Self; 6] =
        [Self::Reload, Self::Scale, Self::Drain, Self::Undrain, Self::Restart, Self::Stop];

    pub(super) fn from_path(path: &str) -> Option<Self> {
        let name = path.strip_prefix('/')?;
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    /// Its path without the slash, and its label in the metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Scale => "scale",
            Self::Drain => "drain",
            Self::Undrain => "undrain",
            Self::Restart => "restart",
            Self::Stop => "stop",
        }
    }

    /// How it is asked for.
    pub(super) const fn usage(self) -> &'static str {
        match self {
            Self::Reload => "POST /reload",
            Self::Scale => "POST /scale?workers=N",
            Self::Drain => "POST /drain?slot=K",
            Self::Undrain => "POST /undrain?slot=K",
            Self::Restart => "POST /restart[?slot=K]",
            Self::Stop => "POST /stop",
        }
    }

    pub(super) const fn about(self) -> &'static str {
        match self {
            Self::Reload => "replaces the workers, slot by slot",
            Self::Scale => "changes the number of slots",
            Self::Drain => "gives a slot no new connections",
            Self::Undrain => "gives a drained slot connections again",
            Self::Restart => "gives a slot, or each, a new worker of the same version",
            Self::Stop => "ends haft, as SIGTERM does",
        }
    }

    /// What has been done by the time of the answer: a part of it, or all.
    const fn success(self) -> StatusCode {
        match self {
            Self::Reload | Self::Scale | Self::Restart | Self::Stop => StatusCode::ACCEPTED,
            Self::Drain | Self::Undrain => StatusCode::OK,
        }
    }

    /// The answer to a method that changes nothing here, if this is one.
    pub(super) fn refuse_method(self, method: &Method) -> Option<Answer> {
        (*method != Method::POST).then(|| {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, format!("This path answers {METHOD}.\n"));
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHOD));
            answer
        })
    }

    /// The change that a query asks for.
    ///
    /// # Errors
    ///
    /// What is wrong with the query, and how it is written.
    pub(super) fn change(self, query: Option<&str>) -> Result<Change, QueryError> {
        let parameters = Parameters { action: self, text: query.unwrap_or_default() };
        match self {
            Self::Reload => parameters.none().map(|()| Change::Reload),
            Self::Scale => parameters.number("workers", 1, MAX_WORKERS).map(|workers| Change::Scale { workers }),
            Self::Drain => parameters.number("slot", 0, MAX_WORKERS - 1).map(|slot| Change::Drain { slot }),
            Self::Undrain => parameters.number("slot", 0, MAX_WORKERS - 1).map(|slot| Change::Undrain { slot }),
            Self::Restart if parameters.text.is_empty() => Ok(Change::Restart { slot: None }),
            Self::Restart => {
                parameters.number("slot", 0, MAX_WORKERS - 1).map(|slot| Change::Restart { slot: Some(slot) })
            }
            Self::Stop => parameters.none().map(|()| Change::Stop),
        }
    }

    /// The master's answer, for the request with these headers.
    pub(super) fn answered(self, asked: &HeaderMap, result: Result<Result<String, Denied>, ControlError>) -> Answer {
        let (status, text) = match result {
            Ok(Ok(text)) => (self.success(), text),
            Ok(Err(denied)) => match denied {
                Denied::Busy(text) => (StatusCode::CONFLICT, text),
                Denied::Impossible(text) => (StatusCode::BAD_REQUEST, text),
            },
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        };
        say(status, asked, &text)
    }
}

/// What is wrong with a query.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}: write {}", action.usage())]
pub(super) struct QueryError {
    action: ControlAction,
    fault: QueryFault,
}

/// Nothing of the query is repeated but names that are known: it may hold anything.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum QueryFault {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("{0} is not a number from {1} to {2}")]
    NoNumber(&'static str, usize, usize),
    #[error("there is a parameter that this path does not have")]
    Unknown,
}

/// The part of a URL after the question mark.
struct Parameters<'a> {
    action: ControlAction,
    text: &'a str,
}

impl Parameters<'_> {
    fn refuse<T>(&self, fault: QueryFault) -> Result<T, QueryError> {
        Err(QueryError { action: self.action, fault })
    }

    fn none(&self) -> Result<(), QueryError> {
        if self.text.is_empty() { Ok(()) } else { self.refuse(QueryFault::Unknown) }
    }

    /// The only parameter, a number in digits.
    fn number(&self, name: &'static str, least: usize, most: usize) -> Result<usize, QueryError> {
        let mut found = None;
        for parameter in self.text.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                (known, _) if known == name && found.is_some() => return self.refuse(QueryFault::Twice(name)),
                (known, value) if known == name => found = Some(value),
                _ => return self.refuse(QueryFault::Unknown),
            }
        }
        let Some(value) = found else { return self.refuse(QueryFault::Missing(name)) };
        // `usize::from_str` would take `+5`.
        let digits = value.bytes().all(|b| b.is_ascii_digit());
        match value.parse().ok().filter(|number| digits && (least..=most).contains(number)) {
            Some(number) => Ok(number),
            None => self.refuse(QueryFault::NoNumber(name, least, most)),
        }
    }
}

/// The answer to a wrong query of a page that is asked for so.
pub(super) fn refuse_query(asked: &HeaderMap, usage: &str) -> Answer {
    say(StatusCode::BAD_REQUEST, asked, &format!("the query is wrong: write GET {usage}"))
}

/// One line for the caller: as text, or as JSON for a client that names it.
pub(super) fn say(status: StatusCode, asked: &HeaderMap, text: &str) -> Answer {
    let mut answered = if negotiate::names(asked, "application/json") {
        let name = if status.is_success() { "message" } else { "error" };
        let json = serde_json::json!({ name: text });
        answer(status, "application/json", Bytes::from(format!("{json}\n")))
    } else {
        plain(status, format!("{text}\n"))
    };
    answered.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_to_change() {
        for (path, query, change) in [
            ("/reload", None, Change::Reload),
            ("/reload", Some(""), Change::Reload),
            ("/scale", Some("workers=1"), Change::Scale { workers: 1 }),
            ("/scale", Some("workers=1024"), Change::Scale { workers: MAX_WORKERS }),
            ("/scale", Some("&workers=004&"), Change::Scale { workers: 4 }),
            ("/drain", Some("slot=0"), Change::Drain { slot: 0 }),
            ("/undrain", Some("slot=1023"), Change::Undrain { slot: 1023 }),
            ("/restart", None, Change::Restart { slot: None }),
            ("/restart", Some("slot=7"), Change::Restart { slot: Some(7) }),
            ("/stop", None, Change::Stop),
        ] {
            let action = ControlAction::from_path(path).expect(path);
            assert_eq!(action.change(query), Ok(change), "{path} {query:?}");
        }
    }

    #[test]
    fn a_wrong_query_is_told_what_is_right() {
        for (path, query, text) in [
            ("/reload", Some("workers=1"), "there is a parameter that this path does not have: write POST /reload"),
            ("/scale", None, "workers is missing: write POST /scale?workers=N"),
            ("/scale", Some(""), "workers is missing"),
            ("/scale", Some("workers"), "workers is not a number from 1 to 1024"),
            ("/scale", Some("workers="), "workers is not a number from 1 to 1024"),
            ("/scale", Some("workers=0"), "workers is not a number from 1 to 1024"),
            ("/scale", Some("workers=1025"), "workers is not a number from 1 to 1024"),
            ("/scale", Some("workers=+1"), "workers is not a number from 1 to 1024"),
            ("/scale", Some("workers=-1"), "workers is not a number from 1 to 1024"),
            ("/scale", Some("workers=99999999999999999999999"), "workers is not a number from 1 to 1024"),
            ("/scale", Some("workers=2&workers=2"), "workers is given twice"),
            ("/scale", Some("workers=2&slot=1"), "there is a parameter that this path does not have"),
            ("/scale", Some("Workers=2"), "there is a parameter that this path does not have"),
            ("/drain", Some("slot=1024"), "slot is not a number from 0 to 1023: write POST /drain?slot=K"),
            ("/restart", Some("slot="), "slot is not a number from 0 to 1023: write POST /restart[?slot=K]"),
            ("/stop", Some("now"), "that this path does not have: write POST /stop"),
            ("/undrain", Some("x=1"), "that this path does not have: write POST /undrain?slot=K"),
        ] {
            let error = ControlAction::from_path(path).expect(path).change(query).expect_err(path).to_string();
            assert!(error.contains(text), "{path} {query:?}: {error}");
        }
    }

    #[test]
    fn only_whole_paths_change_something() {
        for path in ["/", "", "reload", "/reload/", "/Reload", "//reload", "/status", "/reload2"] {
            assert_eq!(ControlAction::from_path(path), None, "{path}");
        }
    }
}

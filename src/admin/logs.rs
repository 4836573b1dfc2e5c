//! `/logs`: what is asked for, and how it is answered. No socket, no clock.

use std::fmt::Write;

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;

use super::answer::{Answer, answer, plain};
use super::change::ControlError;
use super::control::{LinesWanted, LogLine};
use super::negotiate;
use crate::config::MAX_WORKERS;
use crate::log::escaped;

/// Its path.
pub(super) const PATH: &str = "/logs";
/// How it is asked for.
pub(super) const USAGE: &str = "/logs[?slot=K&after=N]";

/// The lines that a query asks for; `None` if it is wrong.
pub(super) fn wanted(query: Option<&str>) -> Option<LinesWanted> {
    let mut wanted = LinesWanted::default();
    let given = query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
    for (name, value) in given.map(|parameter| parameter.split_once('=').unwrap_or((parameter, ""))) {
        // `u64::from_str` would take `+5`.
        let number = value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
        match (name, number) {
            ("slot", Some(slot)) if slot < MAX_WORKERS as u64 => wanted.slot = usize::try_from(slot).ok(),
            ("after", Some(after)) => wanted.after = after,
            _ => return None,
        }
    }
    Some(wanted)
}

/// The master's answer, for the request with these headers.
pub(super) fn answered(asked: &HeaderMap, result: Result<Vec<LogLine>, ControlError>) -> Answer {
    let lines = match result {
        Ok(lines) => lines,
        Err(error) => return plain(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    };
    if negotiate::names(asked, "application/json") {
        let json = serde_json::to_vec(&lines).unwrap_or_default();
        return answer(StatusCode::OK, "application/json", Bytes::from(json));
    }
    let text = lines.iter().fold(String::new(), |mut text, line| {
        // Writing into a string does not fail.
        let _ = writeln!(text, "[w{}] {}", line.slot, escaped(&line.text));
        text
    });
    plain(StatusCode::OK, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_lines() {
        for (query, after, slot) in [
            (None, 0, None),
            (Some(""), 0, None),
            (Some("slot=3"), 0, Some(3)),
            (Some("after=18446744073709551615&slot=0"), u64::MAX, Some(0)),
        ] {
            assert_eq!(wanted(query), Some(LinesWanted { after, slot }), "{query:?}");
        }
        for wrong in ["slot", "slot=", "slot=1024", "slot=-1", "after=+1", "after=99999999999999999999", "x=1"] {
            assert_eq!(wanted(Some(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn lines_are_text_for_people_and_json_for_programs() {
        let line = LogLine { number: 7, unix_ms: 8, slot: 1, text: "a\u{1b}[2Jb".to_owned() };
        let body = |asked: &HeaderMap| {
            let answer = answered(asked, Ok(vec![line.clone()]));
            let body = http_body_util::BodyExt::collect(answer.into_body());
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            String::from_utf8(runtime.block_on(body).expect("never fails").to_bytes().to_vec()).expect("text")
        };
        let mut asked = HeaderMap::new();
        assert_eq!(body(&asked), "[w1] a\\u{1b}[2Jb\n");
        asked.insert(http::header::ACCEPT, "application/json".parse().expect("a value"));
        assert_eq!(body(&asked), r#"[{"number":7,"unix_ms":8,"slot":1,"text":"a\u001b[2Jb"}]"#);
    }
}

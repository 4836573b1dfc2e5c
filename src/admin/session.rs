//! `/session`: whether this haft has signed the tag of a session id. No socket, no clock.

use bytes::Bytes;
use http::StatusCode;

use super::answer::{Answer, answer, plain};
use super::change::ControlError;

/// Its path.
pub(super) const PATH: &str = "/session";
/// How it is asked for.
pub(super) const USAGE: &str = "/session?sid=SID";
/// The longest id that is looked at, in bytes.
const MAX_SID: usize = 256;

/// The id that a query asks about; `None` if it is wrong.
pub(super) fn wanted(query: Option<&str>) -> Option<&str> {
    query?.strip_prefix("sid=").filter(|sid| !sid.is_empty() && sid.len() <= MAX_SID && !sid.contains('&'))
}

/// The master's answer.
pub(super) fn answered(is_signed: Result<bool, ControlError>) -> Answer {
    match is_signed {
        Ok(signed) => {
            let json = serde_json::json!({ "signed": signed });
            answer(StatusCode::OK, "application/json", Bytes::from(format!("{json}\n")))
        }
        Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_one_session() {
        assert_eq!(wanted(Some("sid=abc")), Some("abc"));
        let long = format!("sid={}", "x".repeat(MAX_SID + 1));
        for query in [None, Some(""), Some("sid="), Some("sid=a&slot=1"), Some("id=a"), Some(long.as_str())] {
            assert_eq!(wanted(query), None, "{query:?}");
        }
    }
}

//! Which form of an answer a client gets: the one that it names in `Accept`, else text.
//!
//! Preferences (`q=`) are not weighed: every client that names one of these forms understands it.

use http::{HeaderMap, header};

/// A form of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4: what every scraper understands.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The value of `Content-Type` for this form.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The form for a request with these headers.
    pub fn asked_for(headers: &HeaderMap) -> Self {
        if names(headers, "application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }
}

/// Whether `Accept` names this media type. A wildcard is no sign that the client knows it.
pub(super) fn names(headers: &HeaderMap, media_type: &str) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut named = accept.flat_map(|value| value.split(',')).map(|range| range.split(';').next().unwrap_or(range));
    named.any(|name| name.trim().eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_for_a_client_that_names_it() {
        let mut headers = HeaderMap::new();
        assert!(!names(&headers, "text/html"));
        for accept in ["*/*;q=0.1", "Text/HTML;level=1 , application/xml;q=0.9"] {
            headers.append(header::ACCEPT, accept.parse().expect("a value"));
        }
        assert!(names(&headers, "text/html") && names(&headers, "application/xml"));
        assert!(!names(&headers, "application/json"));
        assert_eq!(Format::asked_for(&headers), Format::Text);
        // As Prometheus 3 sends it.
        let accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.3,*/*;q=0.2";
        headers.append(header::ACCEPT, accept.parse().expect("a value"));
        assert_eq!(Format::asked_for(&headers), Format::OpenMetrics);
    }
}

//! Which form of an answer a client gets (RFC 9110, section 12.5.1).

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

    /// The form for a client with these `Accept` headers.
    ///
    /// OpenMetrics only for a client that names it and likes it no less than the text format: a wildcard is no sign that a
    /// client knows it. A client that accepts neither gets the text format, since an answer helps it more than a 406.
    pub fn negotiate<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut text, mut open_metrics) = (0.0_f32, 0.0_f32);
        for range in accept.into_iter().flat_map(|header| header.split(',')) {
            let range = Range::parse(range);
            let is = |name: &str| range.media_type.eq_ignore_ascii_case(name);
            if is("application/openmetrics-text") && matches!(range.version, None | Some("1.0.0")) {
                open_metrics = open_metrics.max(range.quality);
            } else if is("text/plain") && matches!(range.version, None | Some("0.0.4")) {
                text = text.max(range.quality);
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }
}

/// Whether a client with these `Accept` headers prefers JSON to text. One that names neither does not.
pub(super) fn prefers_json<'a>(accept: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut text, mut json) = (0.0_f32, 0.0_f32);
    for range in accept.into_iter().flat_map(|header| header.split(',')).map(Range::parse) {
        match range.media_type.to_ascii_lowercase().as_str() {
            "application/json" => json = json.max(range.quality),
            "text/plain" | "text/*" => text = text.max(range.quality),
            _ => {}
        }
    }
    json > text
}

/// Whether a client with these `Accept` headers is shown a page: one that names HTML, as browsers do.
pub(super) fn prefers_html<'a>(accept: impl IntoIterator<Item = &'a str>) -> bool {
    let mut ranges = accept.into_iter().flat_map(|header| header.split(',')).map(Range::parse);
    ranges.any(|range| range.media_type.eq_ignore_ascii_case("text/html") && range.quality > 0.0)
}

/// One element of an `Accept` header.
struct Range<'a> {
    media_type: &'a str,
    version: Option<&'a str>,
    /// From 0 (never) to 1; 1 if it is not given, 0 if it is not a number.
    quality: f32,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let mut range = Self { media_type: parts.next().unwrap_or_default(), version: None, quality: 1.0 };
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            let value = value.trim().trim_matches('"');
            if name.trim().eq_ignore_ascii_case("version") {
                range.version = Some(value);
            } else if name.trim().eq_ignore_ascii_case("q") {
                range.quality = value.parse().unwrap_or(0.0_f32).clamp(0.0, 1.0);
            }
        }
        range
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_who_names_it_and_likes_it_better() {
        for (accept, json) in [
            ("application/json", true),
            ("Application/JSON;q=0.3, text/plain;q=0.2", true),
            ("application/json, text/plain", false),
            ("application/json;q=0", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(prefers_json([accept]), json, "{accept}");
        }
    }

    #[test]
    fn a_page_is_for_who_names_it() {
        for (accept, html) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("Text/HTML;q=0.3", true),
            ("text/html;q=0", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(prefers_html([accept]), html, "{accept}");
        }
    }

    #[test]
    fn prometheus_gets_open_metrics_and_everyone_else_the_text_format() {
        for (accept, format) in [
            // Prometheus 2.42 and 3.x as they send it.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Format::OpenMetrics,
            ),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Format::Text),
            ("*/*", Format::Text),
            ("", Format::Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\" ; Q=0.4", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=nonsense", Format::Text),
            ("application/openmetrics-text;q=NaN", Format::Text),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            ("application/openmetrics-text;q=0.5, text/plain", Format::Text),
            ("application/json", Format::Text),
        ] {
            assert_eq!(Format::negotiate([accept]), format, "{accept}");
        }
        assert_eq!(Format::negotiate([]), Format::Text);
        assert_eq!(Format::negotiate(["text/plain;q=0.1", "application/openmetrics-text"]), Format::OpenMetrics);
    }
}

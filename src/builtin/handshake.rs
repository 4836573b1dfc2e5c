//! A WebSocket's handshake: what its headers must say (RFC 6455, 4.2.1), judged as ws 8 does, and from which sites it may
//! come.

use http::header::{
    CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};

use super::refusal::BadHandshake;

/// Whether a request asks for another protocol, whichever.
pub(super) fn asks_for_upgrade<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(UPGRADE) && has_token(request.headers(), CONNECTION, "upgrade")
}

/// Whether the list `name` holds `token`, in whatever case.
pub(super) fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// Judges the handshake. Yields the subprotocol that the answer names, if the client offers any: its first.
pub(super) fn judge<B>(request: &Request<B>) -> Result<Option<HeaderValue>, BadHandshake> {
    let headers = request.headers();
    if request.version() < Version::HTTP_11 {
        return Err(BadHandshake::Http10);
    }
    if request.method() != Method::GET {
        return Err(BadHandshake::Method);
    }
    if !only(headers, UPGRADE).is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return Err(BadHandshake::Upgrade);
    }
    if !only(headers, SEC_WEBSOCKET_KEY).is_some_and(|key| is_key(key.as_bytes())) {
        return Err(BadHandshake::Key);
    }
    // Version 8 differs in the name of a header that is not looked at.
    if !only(headers, SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13" || version == "8") {
        return Err(BadHandshake::Version);
    }
    let offers: Vec<&[u8]> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().map(HeaderValue::as_bytes).collect();
    if offers.is_empty() {
        return Ok(None);
    }
    let offers = offers.join(&b", "[..]);
    let offers: Vec<&[u8]> = offers.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
    let is_twice = |(at, offer): (usize, &&[u8])| offers[..at].contains(offer);
    if !offers.iter().all(|offer| is_token(offer)) || offers.iter().enumerate().any(is_twice) {
        return Err(BadHandshake::Protocol);
    }
    HeaderValue::from_bytes(offers[0]).map(Some).map_err(|_| BadHandshake::Protocol)
}

/// The value of a header that may come once only.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}

/// RFC 9110, 5.6.2.
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// From which sites a WebSocket may be opened. A browser lets any site do so, and sends only its origin.
#[derive(Debug, Clone)]
pub(super) struct Sites(Option<Vec<String>>);

impl Sites {
    /// Those of `--cors-origin` and the server's own; all, if it names none or `*`.
    pub(super) fn new(origins: &[String]) -> Self {
        let names_some = !origins.is_empty() && !origins.iter().any(|origin| origin == "*");
        Self(names_some.then(|| origins.to_vec()))
    }

    /// Whether the request comes from one of them. What comes from no browser names no site.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(sites) = &self.0 else { return true };
        headers.get_all(ORIGIN).iter().all(|origin| {
            let Ok(origin) = origin.to_str() else { return false };
            sites.iter().any(|site| site.eq_ignore_ascii_case(origin)) || is_own(origin, headers)
        })
    }
}

/// Whether the origin is the host that was asked, whatever the scheme: a proxy may have taken TLS off.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let host = only(headers, HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let bare = |text: &str| text.strip_suffix(default).unwrap_or(text).to_ascii_lowercase();
    !host.is_empty() && bare(host) == bare(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("value"));
        }
        request
    }

    #[test]
    fn a_handshake_says_what_it_must() {
        let good = [
            ("upgrade", "WebSocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ];
        assert_eq!(judge(&request(&good)), Ok(None));
        for (at, value, wrong) in [
            (0, "h2c", BadHandshake::Upgrade),
            (0, "websocket, h2c", BadHandshake::Upgrade),
            (1, "dGhlIHNhbXBsZSBub25jZQ", BadHandshake::Key),
            (1, "dGhlIHNhbXBsZSBub25jZQ=A", BadHandshake::Key),
            (2, "12", BadHandshake::Version),
            (2, "", BadHandshake::Version),
        ] {
            let mut bad = good;
            bad[at].1 = value;
            assert_eq!(judge(&request(&bad)), Err(wrong), "{value}");
            assert_eq!(judge(&request(&[&bad[..at], &bad[at + 1..]].concat())), Err(wrong), "without");
            assert_eq!(judge(&request(&[&good[..], &good[at..=at]].concat())), Err(wrong), "twice");
        }
        let mut other = request(&good);
        *other.version_mut() = Version::HTTP_10;
        assert_eq!(judge(&other), Err(BadHandshake::Http10));
        let mut other = request(&good);
        *other.method_mut() = Method::POST;
        assert_eq!(judge(&other), Err(BadHandshake::Method));
        for (offers, answer) in [
            (&["chat"][..], Ok(Some("chat"))),
            (&["b, a"], Ok(Some("b"))),
            (&["b", "a"], Ok(Some("b"))),
            (&["a,,b"], Err(BadHandshake::Protocol)),
            (&["a,a"], Err(BadHandshake::Protocol)),
            (&["a b"], Err(BadHandshake::Protocol)),
        ] {
            let offers = offers.iter().map(|offer| ("sec-websocket-protocol", *offer));
            let judged = judge(&request(&good.into_iter().chain(offers).collect::<Vec<_>>()));
            assert_eq!(judged, answer.map(|offer| offer.map(HeaderValue::from_static)));
        }
    }

    #[test]
    fn only_named_sites_and_ones_own_may_open_a_websocket() {
        let named = Sites::new(&["https://a.example".to_owned(), "http://b.example:8080".to_owned()]);
        for (origin, host, is_admitted) in [
            ("https://a.example", "x", true),
            ("https://A.example", "x", true),
            ("http://b.example:8080", "x", true),
            ("http://a.example", "x", false),
            ("https://a.example.evil", "x", false),
            ("https://evil.example", "x", false),
            ("null", "x", false),
            ("", "x", false),
            ("http://own.example:3000", "own.example:3000", true),
            ("https://own.example", "own.example", true),
            ("https://own.example", "own.example:443", true),
            ("http://own.example:3001", "own.example:3000", false),
            ("http://", "", false),
        ] {
            let headers = request(&[("origin", origin), ("host", host)]);
            assert_eq!(named.admit(headers.headers()), is_admitted, "{origin} at {host}");
            for all in [&[][..], &["*".to_owned()]] {
                assert!(Sites::new(all).admit(headers.headers()));
            }
        }
        assert!(named.admit(request(&[("host", "x")]).headers()), "no browser");
        let two = request(&[("origin", "https://a.example"), ("origin", "https://evil.example"), ("host", "x")]);
        assert!(!named.admit(two.headers()));
    }
}

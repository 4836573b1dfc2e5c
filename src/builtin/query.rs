//! A request's query as Engine.IO reads it: escapes and pluses decoded, and of several values the last.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What the engine, and what stands in front of it, look for.
const NAMES: [&str; 3] = ["EIO", "transport", "sid"];

/// What stands in a query as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The first value of `name` in a query that was made plain, if it was not plain already.
pub(super) fn param<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The address with `EIO`, `transport` and `sid` each written once, unescaped and in front of all else; `None` if they
/// are so already, or as good as so.
pub(super) fn plain(uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let mut values: [Option<Cow<'_, str>>; 3] = [const { None }; 3];
    let (mut rest, mut is_plain) = (Vec::new(), true);
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = decoded(name);
        match NAMES.iter().position(|known| *known == decoded) {
            None => rest.push(pair),
            Some(at) => {
                let value = self::decoded(value);
                is_plain &= matches!((&decoded, &value), (Cow::Borrowed(_), Cow::Borrowed(_))) && values[at].is_none();
                values[at] = Some(value);
            }
        }
    }
    if is_plain {
        return None;
    }
    let known = NAMES.iter().zip(&values).filter_map(|(name, value)| {
        let value = value.as_ref()?;
        Some(format!("{name}={}", utf8_percent_encode(value, PLAIN)))
    });
    let query = known.chain(rest.iter().map(|pair| (*pair).to_owned())).collect::<Vec<_>>().join("&");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{}?{query}", uri.path())).ok()?);
    Uri::from_parts(parts).ok()
}

fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        return percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned().into();
    }
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_taken_out_of_what_the_engine_looks_at_and_the_last_value_counts() {
        for (asked, made) in [
            ("/s/?EIO=4&transport=polling&sid=abc-_&t=%70&t=a+b", None),
            ("/s/", None),
            ("/s/?", None),
            ("/s/?EIO=4&transport=%70olling", Some("/s/?EIO=4&transport=polling")),
            ("/s/?t=%20&%45IO=4&transport=polling", Some("/s/?EIO=4&transport=polling&t=%20")),
            ("/s/?transport=polling&transport=websocket&x", Some("/s/?transport=websocket&x")),
            ("/s/?sid=a%2Eb&sid=c%2ed", Some("/s/?sid=c.d")),
            ("/s/?sid=a%26EIO%3d3&EIO=4", Some("/s/?EIO=4&sid=a%26EIO%3D3")),
            ("/s/?sid=a+b", Some("/s/?sid=a%20b")),
            ("http://h:1/s/?%73id=x", Some("http://h:1/s/?sid=x")),
        ] {
            let plain = plain(&asked.parse().expect("address"));
            assert_eq!(plain.map(|uri| uri.to_string()).as_deref(), made, "{asked}");
        }
    }
}

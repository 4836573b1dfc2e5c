//! Any bytes, looked through for the values by which a client can stick.

use haft::peek::request::{RequestParse, look};
use haft::peek::{MAX_VALUE, NoValue, Request, ValueRoom, ValueSource};
use percent_encoding::percent_decode_str;

const SOURCES: [&str; 8] =
    ["query:room", "query:a b", "query:\u{e9}", "cookie:uid", "cookie:a", "header:x-user", "path:1", "path:2"];

/// The first byte says which value is looked for.
pub fn check(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    let source: ValueSource = SOURCES[usize::from(*which) % SOURCES.len()].parse().expect("a source");
    assert_eq!(source.to_string().parse(), Ok(source.clone()));
    let RequestParse::Request(request) = look(bytes, 0, true) else { return };
    let mut room = ValueRoom::new();
    let value = source.value(&request, &mut room).map(<[u8]>::to_vec);
    let expected = match found_by_another(&source, &request).filter(|value| !value.is_empty()) {
        None => Err(NoValue::Absent),
        Some(value) if value.len() > MAX_VALUE => Err(NoValue::TooLong),
        Some(value) => Ok(value),
    };
    assert_eq!(value, expected, "{source} of {request:?}");
    // What was in the room before makes no difference.
    assert_eq!(source.value(&request, &mut room).map(<[u8]>::to_vec), value);
}

/// The same, without a limit and as simply as can be.
fn found_by_another(source: &ValueSource, request: &Request<'_>) -> Option<Vec<u8>> {
    let form = |text: &str| percent_decode_str(&text.replace('+', " ")).collect::<Vec<u8>>();
    let values = |name: &str| -> Vec<Vec<u8>> {
        let named = request.headers.iter().flatten().filter(|(its, _)| its.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|(_, value)| value.to_vec()).collect()
    };
    match source {
        ValueSource::Query(name) => request.query?.split('&').find_map(|pair| {
            let (its, value) = pair.split_once('=').unwrap_or((pair, ""));
            (form(its) == name.as_bytes()).then(|| form(value))
        }),
        ValueSource::Cookie(name) => {
            let all = values("cookie").join(&b';');
            let pairs = all.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let begin = format!("{name}=");
            pairs.filter(|pair| pair.starts_with(begin.as_bytes())).map(|pair| pair[begin.len()..].to_vec()).next()
        }
        ValueSource::Header(name) => {
            let values: Vec<_> = values(name).into_iter().skip_while(Vec::is_empty).collect();
            Some(values.join(&b", "[..]))
        }
        ValueSource::Path(number) => {
            let segment = request.path.strip_prefix('/')?.split('/').nth(usize::from(*number) - 1)?;
            Some(percent_decode_str(segment).collect())
        }
    }
}

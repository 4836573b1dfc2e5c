//! What is found where, and what is not.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::peek::request::{RequestParse, look};

/// The value that a request has at a place.
fn value_at(source: &str, request: &str) -> Result<Vec<u8>, NoValue> {
    let RequestParse::Request(request) = look(request.as_bytes(), 0, true) else { panic!("no request: {request:?}") };
    let mut room = ValueRoom::new();
    source.parse::<ValueSource>().expect(source).value(&request, &mut room).map(<[u8]>::to_vec)
}

fn in_query(name: &str, query: &str) -> Result<String, NoValue> {
    let value = value_at(&format!("query:{name}"), &format!("GET /x?{query} HTTP/1.1\r\n\r\n"))?;
    Ok(value.escape_ascii().to_string())
}

#[test]
fn a_query_parameter_is_decoded_as_a_forms() {
    for (name, query, value) in [
        ("room", "room=a", Ok("a")),
        ("room", "x=1&room=a&room=b", Ok("a")),
        ("room", "groom=a&room=b", Ok("b")),
        ("room", "room=a+b%20c%2Bd", Ok("a b c+d")),
        ("room", "r%6Fom=a", Ok("a")),
        ("a b", "a+b=1", Ok("1")),
        ("room", "room=%C3%A9", Ok("\\xc3\\xa9")),
        ("room", "room=%ff%00", Ok("\\xff\\x00")),
        ("room", "room=a=b", Ok("a=b")),
        // What is no escape stands for itself.
        ("room", "room=%g1%1g%+1%", Ok("%g1%1g% 1%")),
        ("room", "Room=a", Err(NoValue::Absent)),
        ("room", "room", Err(NoValue::Absent)),
        ("room", "room=&room=b", Err(NoValue::Absent)),
        ("room", "", Err(NoValue::Absent)),
    ] {
        assert_eq!(in_query(name, query), value.map(str::to_owned), "{name} in {query}");
    }
    assert_eq!(value_at("query:room", "GET /x HTTP/1.1\r\n\r\n"), Err(NoValue::Absent));
}

#[test]
fn a_cookie_is_taken_as_it_was_sent() {
    for (headers, value) in [
        ("Cookie: uid=7\r\n", Ok("7")),
        ("cookie: a=b; uid=7; c=d\r\n", Ok("7")),
        ("Cookie: a=b;uid=7;\r\n", Ok("7")),
        ("Cookie: uid=first; uid=second\r\n", Ok("first")),
        ("Cookie: a=b\r\nCookie: uid=7\r\n", Ok("7")),
        ("Cookie: uid=\"a%20b\"\r\n", Ok("\"a%20b\"")),
        ("Cookie: uid=a=b\r\n", Ok("a=b")),
        ("Cookie: guid=6; uid=7\r\n", Ok("7")),
        ("no header at all\r\nCookie: uid=7\r\n", Ok("7")),
        ("Cookie: UID=7\r\n", Err(NoValue::Absent)),
        ("Cookie: uid\r\n", Err(NoValue::Absent)),
        ("Cookie: uid=\r\n", Err(NoValue::Absent)),
        ("X-Cookie: uid=7\r\n", Err(NoValue::Absent)),
    ] {
        let request = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        assert_eq!(value_at("cookie:uid", &request), value.map(Vec::from), "{headers:?}");
    }
}

#[test]
fn a_header_is_found_in_any_case_and_several_are_one() {
    for (headers, value) in [
        ("X-User: Ann\r\n", Ok("Ann")),
        ("x-user:   Ann \t\r\n", Ok("Ann")),
        ("X-User: Ann\r\nHost: x\r\nX-USER: Bob\r\n", Ok("Ann, Bob")),
        ("X-User: \r\n", Err(NoValue::Absent)),
        ("X-Users: Ann\r\n", Err(NoValue::Absent)),
    ] {
        let request = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        assert_eq!(value_at("header:X-User", &request), value.map(Vec::from), "{headers:?}");
    }
}

#[test]
fn a_segment_of_the_path_is_counted_from_one() {
    for (target, number, value) in [
        ("/doc/42", 1, Ok("doc")),
        ("/doc/42?x=/y", 2, Ok("42")),
        ("/doc/a+b%2Fc", 2, Ok("a+b/c")),
        ("http://example.org/doc/42", 2, Ok("42")),
        ("/doc/", 2, Err(NoValue::Absent)),
        ("//doc", 1, Err(NoValue::Absent)),
        ("//doc", 2, Ok("doc")),
        ("/doc", 2, Err(NoValue::Absent)),
        ("/", 1, Err(NoValue::Absent)),
        ("*", 1, Err(NoValue::Absent)),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\n\r\n");
        assert_eq!(value_at(&format!("path:{number}"), &request), value.map(Vec::from), "{number} of {target}");
    }
}

#[test]
fn a_value_that_is_too_long_is_none_and_is_not_replaced_by_another() {
    let (longest, longer) = ("v".repeat(MAX_VALUE), "v".repeat(MAX_VALUE + 1));
    let escaped = longest.chars().fold(String::new(), |mut text, _| {
        text.write_str("%76").expect("written to memory");
        text
    });
    for (source, request) in [
        ("query:n", "GET /?n=VALUE&n=short HTTP/1.1\r\n\r\n"),
        ("cookie:n", "GET / HTTP/1.1\r\nCookie: n=VALUE; n=short\r\n\r\n"),
        ("header:n", "GET / HTTP/1.1\r\nN: VALUE\r\n\r\n"),
        ("path:1", "GET /VALUE HTTP/1.1\r\n\r\n"),
    ] {
        let with = |value: &str| value_at(source, &request.replace("VALUE", value));
        assert_eq!(with(&longest), Ok(longest.clone().into_bytes()), "{source}");
        assert_eq!(with(&longer), Err(NoValue::TooLong), "{source}");
        if matches!(source, "query:n" | "path:1") {
            assert_eq!(
                with(&escaped),
                Ok(longest.clone().into_bytes()),
                "{source}: it is the decoded length that counts"
            );
        }
    }
    let half = "v".repeat(MAX_VALUE / 2);
    let several = format!("GET / HTTP/1.1\r\nN: {half}\r\nN: {half}\r\n\r\n");
    assert_eq!(value_at("header:n", &several), Err(NoValue::TooLong));
}

#[test]
fn a_source_is_written_as_it_is_read() {
    for (text, written) in [
        ("query:room", "query:room"),
        ("query:a b:c", "query:a b:c"),
        ("cookie:connect.sid", "cookie:connect.sid"),
        ("header:X-User", "header:x-user"),
        ("path:16", "path:16"),
    ] {
        let source: ValueSource = text.parse().expect(text);
        assert_eq!((source.to_string().as_str(), written.parse()), (written, Ok(source)));
    }
    for (text, error) in [
        ("", SourceError::Unknown),
        ("query", SourceError::Unknown),
        ("Query:x", SourceError::Unknown),
        ("url:x", SourceError::Unknown),
        ("query:", SourceError::Name),
        ("query:a\n", SourceError::Name),
        ("cookie:a b", SourceError::Name),
        ("header:x:y", SourceError::Name),
        ("path:0", SourceError::Segment),
        ("path:17", SourceError::Segment),
        ("path:+1", SourceError::Segment),
        ("path:x", SourceError::Segment),
    ] {
        assert_eq!(text.parse::<ValueSource>(), Err(error), "{text:?}");
    }
    assert!(format!("query:{}", "n".repeat(MAX_NAME)).parse::<ValueSource>().is_ok());
    assert_eq!(format!("query:{}", "n".repeat(MAX_NAME + 1)).parse::<ValueSource>(), Err(SourceError::Name));
}

/// Text as a form writes it: what need not be escaped is, or is not.
fn form_encoded(bytes: &[u8], escapes: &[bool]) -> String {
    bytes.iter().zip(escapes.iter().cycle()).fold(String::new(), |mut text, (byte, escape)| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' if !escape => {
                text.push(char::from(*byte))
            }
            b' ' if !escape => text.push('+'),
            byte => write!(text, "%{byte:02X}").expect("written to memory"),
        }
        text
    })
}

proptest! {
    /// Whatever stands around it.
    #[test]
    fn what_a_client_writes_is_what_is_read(
        value in prop::collection::vec(any::<u8>(), 1..64),
        before in "([a-z]{1,3}=[a-z]{0,3}&){0,3}",
        escapes in prop::collection::vec(any::<bool>(), 1..9),
    ) {
        let text = form_encoded(&value, &escapes);
        let name = form_encoded(b"the room", &escapes);
        let request = format!("GET /{}?{before}{name}={text}&z HTTP/1.1\r\n\r\n", text.replace('+', "%20"));
        prop_assert_eq!(value_at("query:the room", &request), Ok(value.clone()));
        prop_assert_eq!(value_at("path:1", &request), Ok(value));
    }

    #[test]
    fn a_cookie_among_others_is_found(
        others in prop::collection::vec(("[a-z]{1,3}", "[!-:<-~]{0,5}"), 0..4),
        value in "[!-:<-~]{1,9}",
        at in any::<prop::sample::Index>(),
    ) {
        let mut pairs: Vec<String> = others.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.insert(at.index(pairs.len() + 1), format!("the-user={value}"));
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n", pairs.join("; "));
        prop_assert_eq!(value_at("cookie:the-user", &request), Ok(value.into_bytes()));
    }
}

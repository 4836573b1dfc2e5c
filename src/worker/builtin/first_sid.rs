//! The session id in the first line of a request of which perhaps not all is there.

use httparse::{Request, Status};

use crate::worker::tags;

/// What the beginning of a request tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FirstSid<'b> {
    /// Not all of the line's address is there yet.
    More,
    /// There is none, or this is no request.
    None,
    /// This is it, escaped as it came.
    Some(&'b str),
}

/// Looks for the session id: the first `sid` of the query.
pub(super) fn first_sid(bytes: &[u8]) -> FirstSid<'_> {
    let mut request = Request::new(&mut []);
    // No room for headers is no error before the first of them.
    let parsed = request.parse(bytes);
    match (request.path, parsed) {
        (Some(target), _) => match target.split_once('?').and_then(|(_, query)| tags::sid(query)) {
            Some(sid) => FirstSid::Some(sid),
            None => FirstSid::None,
        },
        (None, Ok(Status::Partial)) => FirstSid::More,
        (None, _) => FirstSid::None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_line_tells_the_sid_as_soon_as_its_address_is_there() {
        let request = b"\r\nGET /socket.io/?EIO=4&sid=ab.c%2F&sid=x HTTP/1.1\r\nhost: x\r\n\r\n";
        let end = request.windows(5).position(|five| five == b" HTTP").expect("version");
        for cut in 0..=request.len() {
            let expected = if cut > end { FirstSid::Some("ab.c%2F") } else { FirstSid::More };
            assert_eq!(first_sid(&request[..cut]), expected, "{cut}");
        }
    }

    #[test]
    fn what_has_none_and_what_is_no_request_need_not_be_waited_for() {
        for bytes in [
            "GET / HTTP/1.1\r\n",
            "GET /?sid= HTTP/1.1\r\n",
            "GET /?xsid=a&tsid=b HTTP/1.1\r\n",
            "GET /sid=a HTTP/1.1\r\n\r\n",
            "\u{16}\u{3}\u{1}",
            "{\"sid\":1}",
            "\rGET",
        ] {
            assert_eq!(first_sid(bytes.as_bytes()), FirstSid::None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_will_do(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            first_sid(&bytes);
        }
    }
}

//! Which callers may change something.
//!
//! On a Unix socket: root and haft's own user, as the kernel states it (SO_PEERCRED, unix(7)). On TCP: callers that
//! know the token, if there is a token file. In both cases only a request that no browser made for another site
//! (cross-site request forgery) and that was made for this listener's own address (DNS rebinding).

use std::fmt;
use std::net::SocketAddr;

use http::header::{self, AsHeaderName, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{StatusCode, Uri};

use super::action;
use super::answer::Answer;
use super::token::TokenFile;

/// The caller, as the kernel states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// Over a Unix socket. `uid`: the effective user when it connected; None if the kernel did not say.
    Unix { uid: Option<u32> },
    /// Over TCP. `local`: the address that it connected to. IPv4-mapped addresses are IPv4.
    Tcp { peer: SocketAddr, local: SocketAddr },
}

impl Caller {
    /// A caller over TCP, from the addresses that the kernel gave.
    pub(super) fn tcp(peer: SocketAddr, local: SocketAddr) -> Self {
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Self::Tcp { peer: canonical(peer), local: canonical(local) }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid: Some(uid) } => write!(f, "uid {uid}"),
            Self::Unix { uid: None } => f.write_str("an unknown user"),
            Self::Tcp { peer, .. } => peer.fmt(f),
        }
    }
}

/// Why a caller may not change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthError {
    /// A Unix peer that is neither root nor haft's own user.
    ForeignUid,
    /// A browser made the request for another site.
    ForeignOrigin,
    /// The request was made for another host.
    ForeignHost,
    /// TCP without a token file.
    ControlOff,
    /// TCP without a token.
    NoToken,
    /// TCP with a token that is not the one.
    WrongToken,
    /// The token file cannot serve any more.
    TokenFile,
}

/// A refusal, and what of it only the operator's log has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) refusal: AuthError,
    pub(super) detail: Option<String>,
}

impl From<AuthError> for Denial {
    fn from(refusal: AuthError) -> Self {
        Self { refusal, detail: None }
    }
}

impl AuthError {
    pub(super) const ALL: [Self; 7] = [
        Self::ForeignUid,
        Self::ForeignOrigin,
        Self::ForeignHost,
        Self::ControlOff,
        Self::NoToken,
        Self::WrongToken,
        Self::TokenFile,
    ];

    /// Its label in the metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ForeignUid => "foreign_uid",
            Self::ForeignOrigin => "foreign_origin",
            Self::ForeignHost => "foreign_host",
            Self::ControlOff => "control_off",
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::TokenFile => "token_file",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        }
    }

    /// What the caller gets: the cure, and nothing that it does not know already.
    const fn text(self) -> &'static str {
        match self {
            Self::ForeignUid => "control is for root and the user that haft runs as",
            Self::ForeignOrigin => "control is not for a web page: leave out the header Origin",
            Self::ForeignHost => {
                "the header Host names another host: ask with the address that you connect to, or localhost"
            }
            Self::ControlOff => "control is off on TCP: use unix: or --admin-token-file",
            Self::NoToken => "control needs the token: send the header `Authorization: Bearer <token>`",
            Self::WrongToken => "this is not the token that is in haft's token file now",
            Self::TokenFile => "control is off on TCP: the token file cannot be used, haft's log says why",
        }
    }

    /// The answer to a request with these headers.
    pub(super) fn answer(self, asked: &HeaderMap) -> Answer {
        let mut answer = action::say(self.status(), asked, self.text());
        // RFC 6750, section 3.
        let challenge = match self {
            Self::NoToken => "Bearer realm=\"haft\"",
            Self::WrongToken => "Bearer realm=\"haft\", error=\"invalid_token\"",
            _ => return answer,
        };
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        answer
    }
}

/// Decides which callers may change something.
#[derive(Debug)]
pub(super) struct Guard {
    /// The user that haft runs as.
    pub(super) own_uid: u32,
    /// What opens control on TCP, if anything does.
    pub(super) token_file: Option<TokenFile>,
}

impl Guard {
    /// Whether this request may change something.
    pub(super) async fn admit(&self, caller: &Caller, uri: &Uri, headers: &HeaderMap) -> Result<(), Denial> {
        check_origin(caller, headers)?;
        check_host(caller, uri, headers)?;
        match caller {
            Caller::Unix { uid: Some(uid) } if *uid == 0 || *uid == self.own_uid => Ok(()),
            Caller::Unix { .. } => Err(AuthError::ForeignUid.into()),
            Caller::Tcp { .. } => self.check_token(headers).await,
        }
    }

    async fn check_token(&self, headers: &HeaderMap) -> Result<(), Denial> {
        let file = self.token_file.clone().ok_or(AuthError::ControlOff)?;
        let given = bearer(headers)?;
        // A file may be slow, and the master's loop runs on this thread.
        let path = file.path().to_owned();
        let unusable = |fault: &dyn fmt::Display| Denial {
            refusal: AuthError::TokenFile,
            detail: Some(format!("{}: {fault}", path.display())),
        };
        match tokio::task::spawn_blocking(move || file.read()).await {
            Ok(Ok(token)) if token.is(given) => Ok(()),
            Ok(Ok(_)) => Err(AuthError::WrongToken.into()),
            Ok(Err(fault)) => Err(unusable(&fault)),
            Err(fault) => Err(unusable(&fault)),
        }
    }
}

/// The token of `Authorization: Bearer` (RFC 6750, section 2.1); a scheme's case does not matter (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Result<&[u8], AuthError> {
    let value = only(headers, header::AUTHORIZATION).map_err(|_| AuthError::WrongToken)?.ok_or(AuthError::NoToken)?;
    match value.as_bytes().split_at_checked("bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(token.trim_ascii()),
        _ => Err(AuthError::NoToken),
    }
}

/// A header that is given once or not at all; as an error, one that is given more than once.
fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Result<Option<&HeaderValue>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(()),
    }
}

/// A browser names the site of the page with every POST (Fetch, "append a request `Origin` header"); there is none with
/// a Unix socket.
fn check_origin(caller: &Caller, headers: &HeaderMap) -> Result<(), AuthError> {
    let origin = match only(headers, header::ORIGIN) {
        Ok(None) => return Ok(()),
        Ok(Some(origin)) => origin,
        Err(()) => return Err(AuthError::ForeignOrigin),
    };
    let authority = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
    match (caller, authority.and_then(|authority| authority.parse().ok())) {
        (Caller::Tcp { local, .. }, Some(authority)) if is_own(&authority, *local) => Ok(()),
        _ => Err(AuthError::ForeignOrigin),
    }
}

/// A name that an attacker's DNS server resolves to our address is still the attacker's name. A request target with an
/// authority counts as well as the header: it is what counts to HTTP (RFC 9112, section 3.2.2). A client that names no
/// host at all (HTTP/1.0) is no browser.
fn check_host(caller: &Caller, uri: &Uri, headers: &HeaderMap) -> Result<(), AuthError> {
    let header = only(headers, header::HOST).map_err(|()| AuthError::ForeignHost)?;
    let parsed = header.filter(|host| !host.is_empty()).map(|host| host.as_bytes().try_into());
    let named = parsed.transpose().map_err(|_| AuthError::ForeignHost)?;
    let fits = |authority: &Authority| match caller {
        Caller::Tcp { local, .. } => is_own(authority, *local),
        Caller::Unix { .. } => is_localhost(authority),
    };
    if named.as_ref().is_none_or(fits) && uri.authority().is_none_or(fits) {
        Ok(())
    } else {
        Err(AuthError::ForeignHost)
    }
}

/// Whether this is the address that was connected to, or localhost at its port. Without a port it is port 80.
fn is_own(authority: &Authority, local: SocketAddr) -> bool {
    let port = if authority.port().is_some() { authority.port_u16() } else { Some(80) };
    let address = || authority.host().trim_matches(['[', ']']).parse() == Ok(local.ip());
    port == Some(local.port()) && (is_localhost(authority) || (!has_user(authority) && address()))
}

fn is_localhost(authority: &Authority) -> bool {
    authority.host().eq_ignore_ascii_case("localhost") && !has_user(authority)
}

/// Neither a Host nor an Origin has one (RFC 9110, section 7.2; RFC 6454, section 6.2).
fn has_user(authority: &Authority) -> bool {
    authority.as_str().contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(local: &str) -> Caller {
        Caller::Tcp { peer: ([192, 0, 2, 1], 4711).into(), local: local.parse().expect("an address") }
    }

    const UNIX: Caller = Caller::Unix { uid: Some(0) };

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| ((*name).parse().expect("name"), value.parse().expect("value"))).fold(
            HeaderMap::new(),
            |mut map, (name, value): (header::HeaderName, HeaderValue)| {
                map.append(name, value);
                map
            },
        )
    }

    fn host(caller: &Caller, target: &str, names: &[(&'static str, &str)]) -> Result<(), AuthError> {
        check_host(caller, &target.parse().expect("a target"), &headers(names))
    }

    #[test]
    fn a_host_is_the_address_that_was_asked_or_localhost() {
        for (local, own) in [
            ("127.0.0.1:9090", vec!["127.0.0.1:9090", "localhost:9090", "LocalHost:9090", ""]),
            ("[::1]:9090", vec!["[::1]:9090", "[0:0:0:0:0:0:0:1]:9090", "localhost:9090"]),
            ("192.0.2.7:80", vec!["192.0.2.7", "192.0.2.7:80", "localhost"]),
        ] {
            for name in own {
                assert_eq!(host(&tcp(local), "/", &[("host", name)]), Ok(()), "{local} {name}");
            }
            assert_eq!(host(&tcp(local), "/", &[]), Ok(()), "{local}");
        }
        for foreign in [
            "evil.example:9090",
            "127.0.0.1",
            "127.0.0.1:9091",
            "127.0.0.2:9090",
            "localhost",
            "localhost.evil.example:9090",
            "localhost:9090@evil.example",
            "x@127.0.0.1:9090",
            "x@localhost:9090",
            "127.0.0.1:9090:9090",
            "127.0.0.1:99999",
            "127.0.0.1:",
            "[::1]:9090",
            "127.1:9090",
            "http://127.0.0.1:9090",
        ] {
            assert!(host(&tcp("127.0.0.1:9090"), "/", &[("host", foreign)]).is_err(), "{foreign}");
        }
        let twice = [("host", "127.0.0.1:9090"), ("host", "127.0.0.1:9090")];
        assert!(host(&tcp("127.0.0.1:9090"), "/", &twice).is_err());
    }

    #[test]
    fn the_target_of_a_request_counts_as_its_host_does() {
        let (local, own) = (tcp("127.0.0.1:9090"), [("host", "127.0.0.1:9090")]);
        assert_eq!(host(&local, "http://localhost:9090/reload", &own), Ok(()));
        assert!(host(&local, "http://evil.example:9090/reload", &own).is_err());
        assert!(host(&UNIX, "http://evil.example/reload", &[("host", "localhost")]).is_err());
    }

    #[test]
    fn on_a_unix_socket_the_host_is_localhost() {
        for own in ["localhost", "LOCALHOST", "localhost:80", ""] {
            assert_eq!(host(&UNIX, "/", &[("host", own)]), Ok(()), "{own}");
        }
        assert_eq!(host(&UNIX, "/", &[]), Ok(()));
        for foreign in ["haft.example", "evil@localhost", "192.0.2.1", "local host"] {
            assert!(host(&UNIX, "/", &[("host", foreign)]).is_err(), "{foreign}");
        }
    }

    #[test]
    fn an_origin_is_the_listener_itself() {
        let at = |caller: &Caller, origin: &str| check_origin(caller, &headers(&[("origin", origin)]));
        for own in ["http://127.0.0.1:9090", "http://localhost:9090"] {
            assert_eq!(at(&tcp("127.0.0.1:9090"), own), Ok(()), "{own}");
            assert!(at(&UNIX, own).is_err(), "{own}");
        }
        assert_eq!(at(&tcp("[::1]:80"), "http://[::1]"), Ok(()));
        for foreign in [
            "null",
            "",
            "https://127.0.0.1:9090",
            "http://127.0.0.1:8080",
            "http://127.0.0.1",
            "http://evil.example:9090",
            "http://127.0.0.1:9090/",
            "127.0.0.1:9090",
            "http://127.0.0.1:9090 http://evil.example",
        ] {
            for caller in [tcp("127.0.0.1:9090"), UNIX] {
                assert!(at(&caller, foreign).is_err(), "{caller:?} {foreign}");
            }
        }
        let twice = headers(&[("origin", "http://127.0.0.1:9090"), ("origin", "http://127.0.0.1:9090")]);
        assert!(check_origin(&tcp("127.0.0.1:9090"), &twice).is_err());
    }

    #[test]
    fn a_token_comes_with_its_scheme() {
        let of = |values: &[&str]| -> Result<Vec<u8>, AuthError> {
            let list: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            bearer(&headers(&list)).map(<[u8]>::to_vec)
        };
        for value in ["Bearer secret", "bearer secret", "BEARER  secret "] {
            assert_eq!(of(&[value]), Ok(b"secret".to_vec()), "{value}");
        }
        for value in [&[][..], &["secret"], &["Basic c2VjcmV0"], &["Bearer"], &[""], &["Bearersecret"]] {
            assert_eq!(of(value), Err(AuthError::NoToken), "{value:?}");
        }
        assert_eq!(of(&["Bearer a", "Bearer b"]), Err(AuthError::WrongToken));
    }
}

//! What a master with a configuration would do with a client.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use crate::addr::EndAddr;
use crate::config::{Config, Criterion, DispatchBy, Rest};
use crate::connection::RouteBy;
use crate::node::named::OwnerLookup;
use crate::node::paths::Learnt;
use crate::peek::{MAX_PEEKED, NoValue, NotHttp, Request, ValueRoom, proxy, request};
use crate::pending::aim::{Aims, Found};
use crate::route::{HostId, Key, MAX_RENDEZVOUS, Reading, Slot, Table, Tag, TagKey, Tagger};

/// A client.
#[derive(Debug, Default)]
pub(super) struct Question {
    /// The peer's address.
    pub(super) client: Option<IpAddr>,
    /// The session that its request names.
    pub(super) sid: Option<String>,
    /// The first bytes of its connection.
    pub(super) request: Option<Vec<u8>>,
}

/// Where it goes, and why.
#[derive(Debug)]
pub(super) struct Explanation {
    /// Its address, as haft takes it, and in which words it was learnt.
    pub(super) client: Option<(IpAddr, &'static str)>,
    /// `--affinity`.
    pub(super) affinity: String,
    /// How each criterion fared.
    pub(super) criteria: Vec<(String, String)>,
    /// What is worth knowing of the request.
    pub(super) notes: Vec<String>,
    /// The session.
    pub(super) session: Option<ParsedSession>,
    /// What decides.
    pub(super) by: By,
    /// The slots there are.
    pub(super) slots: usize,
}

/// A session id, taken apart.
#[derive(Debug)]
pub(super) struct ParsedSession {
    /// The id without its tag.
    pub(super) base: String,
    /// The tag's content: host and worker.
    pub(super) tag: Option<(HostId, Tag)>,
    /// Whether it was made with the key; none without a key to check it.
    pub(super) is_valid: Option<bool>,
}

/// What decides.
#[derive(Debug)]
pub(super) enum By {
    /// A key: the slots in its order, and the first one if there were one more.
    Key {
        /// Where the key comes from.
        of: String,
        /// The key.
        key: Key,
        /// The slots, the client's own first.
        order: Vec<Slot>,
        /// Its slot if there were one more; none if there cannot be.
        with_one_more: Option<Slot>,
    },
    /// The session's tag.
    Session(Tag),
    /// It opens a session: the fewest sessions.
    RecentSessions,
    /// The least on its way.
    Load,
    /// It is unknown, and why.
    Unknown(&'static str),
}

const NO_ADDRESS: &str = "by the client's address: give it, too (haft why ADDRESS ...)";
const NO_KEY: &str = "by a value, hashed with a key that only the running haft has: give --tag-key to both";

impl Explanation {
    /// # Errors
    ///
    /// When a master with this configuration would not decide in a way that can be computed here.
    pub(super) fn new(
        config: &Config,
        question: Question,
        is_signed: &dyn Fn(&str) -> Option<bool>,
    ) -> Result<Self, String> {
        if config.dispatch == DispatchBy::Kernel && config.workers > MAX_RENDEZVOUS {
            return Err(format!(
                "with --dispatch kernel and more than {MAX_RENDEZVOUS} workers the kernel has an order of its own"
            ));
        }
        let secret = config.sessions.tag_key.as_ref().map(|secret| secret.key.clone());
        let checks = SessionChecks { secret: secret.as_ref(), is_signed };
        let mut it = Self {
            client: question.client.map(|ip| (ip, "")),
            affinity: config.affinity.to_string(),
            criteria: Vec::new(),
            notes: Vec::new(),
            session: None,
            by: By::Unknown(NO_ADDRESS),
            slots: config.workers,
        };
        let bytes = match (&question.sid, question.request) {
            (Some(sid), _) => {
                it.session = Some(checks.parse(sid));
                let path = config.sessions.paths.first().map_or("/socket.io/", String::as_str);
                Some(format!("GET {path}?sid={sid} HTTP/1.1\r\n\r\n").into_bytes())
            }
            (None, request) => request,
        };
        let found = bytes.as_deref().and_then(|bytes| it.look(config, &checks, bytes));
        it.by = it.decide(config, found, secret.is_some());
        Ok(it)
    }

    /// Looks at the first bytes as a master would.
    fn look(&mut self, config: &Config, checks: &SessionChecks<'_>, bytes: &[u8]) -> Option<Found> {
        let (bytes, session) = checks.signed_here(self.without_proxy_header(config, bytes));
        self.session = self.session.take().or(session.filter(|_| config.affinity.has_sessions()));
        let bytes = &*bytes;
        let (looked, has_all) = match request::look(bytes, 0, true) {
            request::RequestParse::More => (request::look(bytes, 0, false), false),
            whole => (whole, true),
        };
        let request = match looked {
            request::RequestParse::Request(request) => request,
            request::RequestParse::NotHttp(kind) => {
                self.notes.push(format!("no request of HTTP/1: {}", name(kind)));
                return None;
            }
            request::RequestParse::More => {
                self.notes.push("its first line is not complete".to_owned());
                return None;
            }
        };
        if !has_all && bytes.len() < MAX_PEEKED {
            self.notes
                .push("its headers do not end: they are taken as they are, where haft would wait for more".to_owned());
        }
        self.read_address(config, &request);
        if self.session.is_none() && config.affinity.has_sessions() {
            self.session = request.sid().map(|sid| checks.parse(sid));
        }
        let found = Aims::new(config, &checks.key()).find(&request, true, engine_s, |_| OwnerLookup::Unknown)?;
        for (criterion, outcome) in config.affinity.criteria().iter().zip(found.outcomes()) {
            self.criteria.push((criterion.to_string(), fate(criterion, outcome.err(), &request)));
        }
        if let Some(host) = found.elsewhere() {
            self.notes
                .push(format!("its session belongs to host {host}: whichever worker it comes to here answers 400"));
        }
        if found.goal == RouteBy::Load {
            self.notes.push("its path is below no --sticky-path".to_owned());
        }
        Some(found)
    }

    /// What follows a PROXY header, if there is one and its peer may send it.
    fn without_proxy_header<'b>(&mut self, config: &Config, bytes: &'b [u8]) -> &'b [u8] {
        if !config.proxies.protocol || !self.trusts(config) {
            return bytes;
        }
        match proxy::look(bytes) {
            proxy::ProxyParse::Header(header) => {
                if let Some(ends) = header.ends {
                    self.client = Some((ends.client.ip(), " (from its PROXY header)"));
                }
                bytes.get(header.len..).unwrap_or_default()
            }
            proxy::ProxyParse::Malformed { len } => {
                self.notes.push("its PROXY header is malformed".to_owned());
                bytes.get(len.unwrap_or(0)..).unwrap_or_default()
            }
            proxy::ProxyParse::Absent | proxy::ProxyParse::More => bytes,
        }
    }

    fn read_address(&mut self, config: &Config, request: &Request<'_>) {
        let Some(header) = config.proxies.header.as_ref().filter(|_| self.trusts(config)) else { return };
        match header.client(request.headers, &config.proxies.trusted) {
            Ok(Some(client)) => self.client = Some((client.ip(), " (from its header)")),
            Ok(None) => self.notes.push(format!("it has no header {}", header.name())),
            Err(_) => self.notes.push(format!("its header {} is malformed", header.name())),
        }
    }

    /// Whether the peer's word counts; one that was not named is taken for a proxy that does.
    fn trusts(&self, config: &Config) -> bool {
        self.client.is_none_or(|(ip, _)| config.proxies.trusted.contains_ip(ip))
    }

    fn decide(&self, config: &Config, found: Option<Found>, has_secret: bool) -> By {
        match found.as_ref().map_or(RouteBy::Address, |found| found.goal) {
            RouteBy::Session(tag) => By::Session(tag),
            RouteBy::RecentSessions => By::RecentSessions,
            RouteBy::Load => By::Load,
            RouteBy::Value(_) if !has_secret => By::Unknown(NO_KEY),
            RouteBy::Value(kind) => match found.and_then(|found| found.key) {
                Some(key) => by_key(format!("the {}'s value", kind.word()), key, config),
                None => By::Unknown(NO_KEY),
            },
            RouteBy::Address if config.affinity.rest() == Rest::None => By::Load,
            RouteBy::Address => match self.client {
                None => By::Unknown(NO_ADDRESS),
                Some((ip, _)) => {
                    let prefix = if ip.to_canonical().is_ipv4() { config.prefix.ipv4 } else { config.prefix.ipv6 };
                    let key = Key::of_client(&EndAddr::from_ip(SocketAddr::new(ip, 0)), config.prefix);
                    by_key(format!("the first {prefix} bits of the address"), key, config)
                }
            },
        }
    }
}

fn by_key(of: String, key: Key, config: &Config) -> By {
    match Table::new(config.workers) {
        Ok(table) => By::Key {
            of,
            key,
            order: table.order(key).collect(),
            with_one_more: Table::new(config.workers + 1).ok().map(|table| table.choose(key)),
        },
        Err(_) => By::Unknown("there are no slots"),
    }
}

/// Whether it is a request of Engine.IO's: at whichever path, the workers of a Node program report it.
fn engine_s(request: &Request<'_>) -> Learnt {
    match request.is_engine_io() {
        true => Learnt::Begins,
        false => Learnt::Nothing,
    }
}

/// How a criterion fared, in words.
fn fate(criterion: &Criterion, without: Option<NoValue>, request: &Request<'_>) -> String {
    match (without, criterion) {
        (Some(NoValue::Absent), Criterion::Session) => "absent, or not known here".to_owned(),
        (Some(why), _) => why.to_string(),
        (None, Criterion::Session) => "decides".to_owned(),
        (None, Criterion::Value(source)) => {
            let mut room = ValueRoom::new();
            let value = source.value(request, &mut room).unwrap_or_default();
            format!("decides: \"{}\"", value.escape_ascii())
        }
    }
}

fn name(kind: NotHttp) -> &'static str {
    match kind {
        NotHttp::Tls => "TLS",
        NotHttp::Http2 => "HTTP/2",
        NotHttp::ProxyHeader => "a PROXY header that is not taken",
        NotHttp::Other => "something else",
    }
}

/// How a session's tag is checked.
struct SessionChecks<'a> {
    /// The key, if it was given.
    secret: Option<&'a TagKey>,
    /// Whether a running haft, which has the key, has signed it.
    is_signed: &'a dyn Fn(&str) -> Option<bool>,
}

impl SessionChecks<'_> {
    /// The key, or one in the place of that which is not known.
    fn key(&self) -> TagKey {
        self.secret.cloned().unwrap_or_else(|| TagKey::of_text(""))
    }

    fn parse(&self, sid: &str) -> ParsedSession {
        let Some((base, host, tag)) = Tagger::claimed(sid.as_bytes()) else {
            return ParsedSession { base: sid.to_owned(), tag: None, is_valid: None };
        };
        let is_valid = match self.secret {
            Some(key) => Some(Tagger::new(key).reading(sid.as_bytes()) != Reading::Untagged),
            None => (self.is_signed)(sid),
        };
        ParsedSession { base: String::from_utf8_lossy(base).into_owned(), tag: Some((host, tag)), is_valid }
    }

    /// The request, and its session if the running haft has signed it: then the request names it with a tag that is
    /// signed with the key of this place.
    fn signed_here<'b>(&self, bytes: &'b [u8]) -> (Cow<'b, [u8]>, Option<ParsedSession>) {
        let same = (bytes.into(), None);
        let request::RequestParse::Request(request) = request::look(bytes, 0, false) else { return same };
        let Some(sid) = request.sid().filter(|_| self.secret.is_none()) else { return same };
        let session = self.parse(sid);
        let (Some((host, tag)), Some(true)) = (session.tag, session.is_valid) else { return same };
        let signed = Tagger::new(&self.key()).on(host).append(&session.base, tag);
        let text = String::from_utf8_lossy(bytes).replacen(sid, &signed, 1);
        (text.into_bytes().into(), Some(session))
    }
}

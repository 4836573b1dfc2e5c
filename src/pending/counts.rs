//! What was seen of the connections that were looked at.

use super::hints::Hints;

/// What was seen, by kind.
#[derive(Debug, Default)]
pub struct PeekCounts {
    /// PROXY headers that were taken.
    pub proxy_taken: u64,
    /// Trusted peers that began with something else.
    pub proxy_absent: u64,
    /// Trusted peers that began with a broken one.
    pub proxy_malformed: u64,
    /// Requests whose client's address came from a header.
    pub header_taken: u64,
    /// Requests of trusted peers without that header.
    pub header_absent: u64,
    /// Requests of trusted peers with a header that holds no address.
    pub header_malformed: u64,
    /// Connections that were not waited for any longer since too many did.
    pub crowded: u64,
    /// Connections whose request did not come in time.
    pub timed_out: u64,
    /// Connections whose request was longer than haft peeks.
    pub too_long: u64,
    /// Connections that ended before their request was there.
    pub over: u64,
    /// Connections whose session no worker has named in time.
    pub unnamed: u64,
    /// Connections of trusted peers that did not state their client.
    pub unattributed: u64,
    /// Connections that bring no HTTP/1.
    pub not_http: u64,
    /// Connections whose session belongs to another host.
    pub other_hosts: u64,
    /// Which criteria of `--affinity` decided, in their order.
    pub criteria: Vec<CriterionCount>,
    /// What is worth telling the operator.
    pub hints: Hints,
}

/// How often a criterion decided, or could not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CriterionCount {
    /// The criterion, as it is written in `--affinity`.
    pub criterion: String,
    /// First requests that it decided.
    pub decided: u64,
    /// Those that did not have it.
    pub absent: u64,
    /// Those whose value was too long.
    pub too_long: u64,
}

impl PeekCounts {
    /// Connections that were not looked at to the end, by reason.
    pub fn given_up(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("timeout", self.timed_out),
            ("max_peeking", self.crowded),
            ("too_long", self.too_long),
            ("closed", self.over),
            ("not_http", self.not_http),
            ("not_named", self.unnamed),
        ]
    }

    /// PROXY headers of trusted peers, by what became of them.
    pub fn proxy_headers(&self) -> Vec<(&'static str, u64)> {
        vec![("taken", self.proxy_taken), ("absent", self.proxy_absent), ("malformed", self.proxy_malformed)]
    }

    /// Headers with the client's address, by what became of them.
    pub fn client_ip_headers(&self) -> Vec<(&'static str, u64)> {
        vec![("taken", self.header_taken), ("absent", self.header_absent), ("malformed", self.header_malformed)]
    }
}

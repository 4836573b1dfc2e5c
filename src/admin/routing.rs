//! What the admin pages know of where connections went. Plain data, a part of the snapshot.

use serde::{Serialize, Serializer};

/// What decided where connections went, and what was learnt for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RoutingFigures {
    /// Connections by what decided which worker they go to.
    #[serde(serialize_with = "as_map")]
    pub routed: Vec<(&'static str, u64)>,
    /// Connections of trusted proxies whose clients' addresses are unknown.
    pub unattributed: u64,
    /// Of the connections that are held, those whose first request has not come.
    pub peeking: u64,
    /// Of the connections that are held, those that wait for their turn by the limits for clients.
    pub at_the_gate: u64,
    /// Connections that have waited for that.
    pub delayed: u64,
    /// Connections that were assigned, or refused, without their first request having been seen, by reason.
    #[serde(serialize_with = "as_map")]
    pub given_up: Vec<(&'static str, u64)>,
    /// PROXY headers of trusted peers, by outcome.
    #[serde(serialize_with = "as_map")]
    pub proxy_headers: Vec<(&'static str, u64)>,
    /// First requests of trusted peers by the outcome of the header that gives the client's address.
    #[serde(serialize_with = "as_map")]
    pub client_ip_headers: Vec<(&'static str, u64)>,
    /// How many traces run now (`haft trace`).
    pub traces: usize,
    /// How many leading bits of an IPv4 address count.
    pub ipv4_prefix: u8,
    /// The same of an IPv6 address.
    pub ipv6_prefix: u8,
    /// Connections whose session belongs to another host (`--host-id`).
    pub other_hosts: u64,
    /// First requests by how each criterion of `--affinity` fared, in its order.
    pub criteria: Vec<CriterionFigures>,
}

/// How often a criterion of `--affinity` decided where a connection goes, or could not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CriterionFigures {
    /// The criterion, as it is written in `--affinity`.
    pub criterion: String,
    /// First requests by how it fared: it decided, was absent, or was too long.
    #[serde(flatten, serialize_with = "as_map")]
    pub outcomes: Vec<(&'static str, u64)>,
}

/// Counts as an object, each under its reason.
pub(super) fn as_map<S: Serializer, K: Serialize>(counts: &[(K, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().map(|(reason, count)| (reason, count)))
}

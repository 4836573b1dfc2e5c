//! Where connections went, and what was learnt for it.

use std::fmt;

use super::super::families::{Families, no_labels};
use super::super::routing::RoutingFigures;
use super::by;

pub(super) fn routing(families: &mut Families<'_>, now: &RoutingFigures) -> fmt::Result {
    families.counter(
        "haft_connections_routed",
        "What decided which worker a connection goes to.",
        by("by", &now.routed),
    )?;
    families.counter(
        "haft_connections_unattributed",
        "Connections of trusted proxies whose clients' addresses are unknown.",
        [(no_labels(), now.unattributed)],
    )?;
    families.gauge(
        "haft_connections_peeking",
        "Connections held whose first request has not come.",
        [(no_labels(), now.peeking)],
    )?;
    families.counter(
        "haft_connections_delayed",
        "Connections that had to wait for their turn by the limits for clients.",
        [(no_labels(), now.delayed)],
    )?;
    families.counter(
        "haft_peeks_given_up",
        "Connections that were assigned, or refused, without their first request having been seen.",
        by("reason", &now.given_up),
    )?;
    families.counter("haft_proxy_headers", "PROXY headers of trusted peers.", by("outcome", &now.proxy_headers))?;
    families.counter(
        "haft_client_ip_headers",
        "First requests of trusted peers, by the header that gives the client's address.",
        by("outcome", &now.client_ip_headers),
    )?;
    families.counter(
        "haft_sessions_of_other_hosts",
        "Connections whose session belongs to another host, by the name in its id.",
        [(no_labels(), now.other_hosts)],
    )?;
    families.counter(
        "haft_affinity_criteria",
        "First requests by how each criterion of --affinity fared: it decided, or was absent or too long.",
        now.criteria.iter().flat_map(|count| {
            let criterion = || ("criterion", count.criterion.as_str().into());
            by("outcome", &count.outcomes).map(move |(labels, number)| ([vec![criterion()], labels].concat(), number))
        }),
    )
}

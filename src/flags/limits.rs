//! Which clients may come, how fast, and how many at once.

use crate::config::{Limits, OverLimit, Rate};
use crate::flags::error::FlagsError;
use crate::flags::number::number;
use crate::flags::provenance::Provenance;
use crate::peek::TrustedProxy;

/// A flag that is of no use alone.
const OVER_LIMIT: &str = "over-limit";

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits (with --dispatch handover)")]
pub(super) struct LimitFlags {
    /// How many connections one client may open: 10/s, 600/m, or with how many at once, 10/s:50 [default: any]
    ///
    /// A client is an IPv4 address, or the first 64 bits of an IPv6 address: the peer's, or what a trusted proxy
    /// states.
    #[arg(long, value_name = "N/s|N/m[:N]")]
    max_rate_per_client: Option<Rate>,

    /// How many connections of one client may wait: for their first request, or for a worker to take them [default:
    /// any]
    #[arg(long, value_name = "N", value_parser = number::<1, 1_000_000, usize>)]
    max_waiting_per_client: Option<usize>,

    /// How many connections all clients together may open, written as for one client [default: any]
    #[arg(long, value_name = "N/s|N/m[:N]")]
    max_rate: Option<Rate>,

    /// What becomes of a connection that is over a limit: it waits for its turn (wait), or is reset (refuse)
    ///
    /// It waits for --hold-timeout at most, and one client's may be as many as may wait anyway; others are reset.
    #[arg(long, value_name = "wait|refuse", default_value = "wait")]
    over_limit: OverLimit,

    /// Whose connections are taken: an address or a network (10.0.0.0/8, ::1), or `unix`; repeatable [default: all]
    ///
    /// It is the peer's own address that counts, whatever a proxy states. All others are reset before anything else.
    #[arg(long, value_name = "CIDR")]
    allow: Vec<TrustedProxy>,

    /// Whose connections are reset, even if --allow names them; repeatable [default: none]
    #[arg(long, value_name = "CIDR")]
    deny: Vec<TrustedProxy>,
}

impl LimitFlags {
    pub(super) fn resolve(self, provenance: &Provenance) -> Result<Limits, FlagsError> {
        let limits = Limits {
            rate_per_client: self.max_rate_per_client,
            waiting_per_client: self.max_waiting_per_client,
            rate: self.max_rate,
            over: self.over_limit,
            allow: self.allow.into_iter().collect(),
            deny: self.deny.into_iter().collect(),
        };
        if !limits.has_some() && provenance.is_given(OVER_LIMIT) {
            return Err(FlagsError::NothingToExceed { name: provenance.name(OVER_LIMIT) });
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::{Limits, OverLimit};
    use crate::flags::testing::{config, refused};
    use crate::route::TokenRate;

    #[test]
    fn a_rate_has_a_time_and_may_have_a_burst() {
        assert_eq!(config(&[]).limits, Limits::default());
        for (text, count, seconds, burst) in [("10/s", 10, 1, 10), ("600/m", 600, 60, 600), ("10/s:50", 10, 1, 50)] {
            let limits = config(&["--max-rate-per-client", text]).limits;
            let pace = limits.rate_per_client.expect("a rate").pace();
            assert_eq!(pace, TokenRate { count, period: Duration::from_secs(seconds), burst });
        }
        for text in ["10", "0/s", "10/h", "10/s:0", "10/s:", "+5/s", "1.5/s", "/s", "2000000/s"] {
            assert!(refused(&["--max-rate", text]).contains("write 10/s or 600/m"), "{text}");
        }
    }

    #[test]
    fn clients_may_be_allowed_denied_and_refused() {
        let args = ["--allow=10.0.0.0/8", "--deny=10.0.0.1", "--over-limit=refuse", "--max-waiting-per-client=5"];
        let limits = config(&args).limits;
        assert_eq!((limits.over, limits.waiting_per_client), (OverLimit::Refuse, Some(5)));
        assert_eq!((limits.allow.iter().len(), limits.deny.iter().len()), (1, 1));
        let message = refused(&["--over-limit=refuse", "--deny=10.0.0.1"]);
        assert!(message.contains("--over-limit is of no use without a limit: add --max-rate-per-client"), "{message}");
        assert!(refused(&["--deny=10.0.0.1/8"]).contains("the network is 10.0.0.0/8"));
    }

    #[test]
    fn where_the_kernel_assigns_there_are_none() {
        for (flag, message) in [
            ("--max-rate=1/s", "--max-rate: --dispatch is kernel, and haft does not see a client's connections"),
            ("--max-rate-per-client=1/s", "--max-rate-per-client: --dispatch is kernel, and haft does not see"),
            ("--max-waiting-per-client=1", "--max-waiting-per-client: --dispatch is kernel, and haft does not see"),
            ("--allow=::1", "--allow: --dispatch is kernel, and haft does not see a client's connections"),
            ("--deny=::1", "--deny: --dispatch is kernel, and haft does not see a client's connections"),
        ] {
            let provenance = refused(&["--dispatch=kernel", flag]);
            assert!(
                provenance.contains(message) && provenance.contains("(a packet filter such as nftables"),
                "{provenance}"
            );
        }
    }
}

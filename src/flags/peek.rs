//! The first request of a connection: how it is waited for, where it must be looked at.

use std::time::Duration;

use crate::config::{FirstRequest, PeekTimeoutAction};
use crate::flags::number::number;
use crate::flags::time;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "First request (where it must be looked at: sessions, sticky paths, proxies)")]
pub(super) struct FirstFlags {
    /// How long a client may take to send its first request
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time::positive)]
    peek_timeout: Duration,

    /// What haft does with a connection after --peek-timeout: assign it by the client's address (hand-over) or close it
    /// (close)
    #[arg(long, value_name = "hand-over|close", default_value = "hand-over")]
    peek_timeout_action: PeekTimeoutAction,

    /// Maximum number of connections waiting for their first request; past it, the one that has waited longest is treated
    /// as timed out
    #[arg(long, value_name = "N", default_value = "16384", value_parser = number::<1, 1_000_000, usize>)]
    max_peeking: usize,
}

impl FirstFlags {
    pub(super) fn resolve(self) -> FirstRequest {
        FirstRequest { timeout: self.peek_timeout, timeout_action: self.peek_timeout_action, most: self.max_peeking }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::{FirstRequest, PeekTimeoutAction};
    use crate::flags::testing::{config, refused};

    #[test]
    fn waiting_is_bounded_in_time_and_number() {
        assert_eq!(config(&[]).first, FirstRequest::default());
        let args = ["--peek-timeout=1s", "--peek-timeout-action=close", "--max-peeking=5"];
        let given = config(&args).first;
        assert_eq!((given.timeout, given.most), (Duration::from_secs(1), 5));
        assert_eq!(given.timeout_action, PeekTimeoutAction::Close);
        assert!(refused(&["--peek-timeout=0s"]).contains("it must be more than 0"));
        assert!(refused(&["--peek-timeout-action=drop"]).contains("write hand-over or close"));
        assert!(refused(&["--max-peeking=0"]).contains("write a number from 1"));
    }
}

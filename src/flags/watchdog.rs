//! When a worker counts as hung, and what is done with it then.

use std::time::Duration;

use crate::flags::SWITCH;
use crate::flags::error::FlagsError;
use crate::flags::provenance::Provenance;
use crate::flags::time;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Timeouts")]
pub(super) struct Hanging {
    /// How long a worker may leave its connections unacknowledged before it counts as hung and its new clients go to the
    /// next slot; 0 is never
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time::span_or_off)]
    hang_timeout: Duration,

    /// Kill a hung worker and replace it; other workers serve the connections that it had not acknowledged
    #[arg(long, value_name = SWITCH, action = clap::ArgAction::Set)]
    pub(super) hang_kill: bool,
}

impl Hanging {
    /// The time after which a worker that acknowledges nothing counts as hung, if one ever does. `is_asked`: one that
    /// does not answer may count as such, too.
    pub(super) fn resolve(&self, is_asked: bool, provenance: &Provenance) -> Result<Option<Duration>, FlagsError> {
        if self.hang_timeout.is_zero() && self.hang_kill && !is_asked {
            return Err(FlagsError::NeverHung {
                kill: provenance.name("hang-kill"),
                never: provenance.name("hang-timeout"),
            });
        }
        Ok((!self.hang_timeout.is_zero()).then_some(self.hang_timeout))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::flags::testing::{Folder, config, refused};

    #[test]
    fn a_worker_counts_as_hung_after_ten_seconds_or_never() {
        assert_eq!(config(&[]).hang_timeout, Some(Duration::from_secs(10)));
        assert_eq!(config(&["--hang-timeout", "250ms"]).hang_timeout, Some(Duration::from_millis(250)));
        for never in ["0", "0s", "0ms"] {
            assert_eq!(config(&["--hang-timeout", never]).hang_timeout, None, "{never}");
        }
        for (text, why) in [("10", "give a unit, such as 10s"), ("off", "write a time such as")] {
            assert!(refused(&["--hang-timeout", text]).contains(why), "{}", refused(&["--hang-timeout", text]));
        }
    }

    #[test]
    fn a_hung_worker_is_killed_on_demand_where_one_can_be_hung() {
        assert!(!config(&[]).hang_kill);
        assert!(config(&["--hang-kill"]).hang_kill);
        assert!(config(&["--hang-kill=true", "--hang-timeout=1s"]).hang_kill);
        config(&["--hang-kill=false", "--hang-timeout=0"]);
        let message = refused(&["--hang-kill", "--hang-timeout=0"]);
        assert!(message.contains("--hang-kill: --hang-timeout is 0, so no worker counts as hung"), "{message}");
        let folder = Folder::new();
        let file = folder.yaml("\nhang-timeout: 0\n");
        assert!(refused(&["-c", &file, "--hang-kill"]).contains("haft.yaml:2: hang-timeout is 0"));
    }
}

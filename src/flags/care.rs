//! When workers are replaced though they serve, and what becomes of a slot whose workers end too often.

use std::time::Duration;

use crate::config::{Care, Often, Size};
use crate::flags::error::FlagsError;
use crate::flags::provenance::Provenance;
use crate::flags::time;
use crate::pool::{GiveUp, RestartLimit};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Care for workers")]
pub(super) struct CareFlags {
    /// How much resident memory a worker may have (512M, 2G) before it is replaced as in a reload [default: any]
    ///
    /// The new worker is ready before the old one finishes, one slot at a time. Memory is looked at every two seconds. Behind a
    /// wrapper (npm, sh) it is that of the largest process which the worker consists of.
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<Size>,

    /// How old a worker may become (12h, 7days) before it is replaced in the same way [default: any]
    ///
    /// Each worker is replaced up to a tenth of that time sooner, at random, so that they do not all go at once.
    #[arg(long, value_name = "TIME", value_parser = time::positive)]
    max_age: Option<Duration>,

    /// How often a slot's worker may end by itself within a time (5/1m) before haft gives up [default: any number]
    ///
    /// Without it such a worker is replaced for ever, after a pause that grows from 100 ms to 10 s.
    #[arg(long, value_name = "N/TIME")]
    max_restarts: Option<Often>,

    /// What giving up is: haft stops, with exit code 1 (exit), or the slot gets no worker until it is restarted (out)
    /// [default: out, if --max-restarts is given]
    ///
    /// The last slot that takes clients is never taken out.
    #[arg(long, value_name = "exit|out")]
    give_up: Option<GiveUp>,
}

impl CareFlags {
    pub(super) fn resolve(self, provenance: &Provenance) -> Result<Care, FlagsError> {
        if self.max_restarts.is_none() && self.give_up.is_some() {
            return Err(FlagsError::NeverGivesUp { name: provenance.name("give-up") });
        }
        let then = self.give_up.unwrap_or(GiveUp::Out);
        let limit = |Often { most, within }| RestartLimit { most, within, then };
        Ok(Care { max_memory: self.max_memory, max_age: self.max_age, restarts: self.max_restarts.map(limit) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::Care;
    use crate::flags::testing::{config, refused};
    use crate::pool::{GiveUp, RestartLimit};

    #[test]
    fn workers_may_be_as_large_and_old_as_they_like_unless_a_flag_says_otherwise() {
        assert_eq!(config(&[]).care, Care::default());
        let care = config(&["--max-memory", "300M", "--max-age", "12h"]).care;
        assert_eq!(care.max_memory.expect("a limit").bytes(), 300 << 20);
        assert_eq!(care.max_age, Some(Duration::from_secs(12 * 3600)));
        for (flag, value, cure) in [
            ("--max-memory", "300", "with its unit, such as 512M"),
            ("--max-age", "0s", "more than 0"),
            ("--max-age", "12", "give a unit"),
            ("--max-restarts", "5", "such as 5/1m"),
            ("--give-up", "never", "exit or out"),
        ] {
            assert!(refused(&[flag, value]).contains(cure), "{}", refused(&[flag, value]));
        }
    }

    #[test]
    fn a_slot_is_given_up_where_a_limit_is_set() {
        let limit = |args: &[&str]| config(args).care.restarts;
        let (most, within) = (5, Duration::from_secs(60));
        assert_eq!(limit(&["--max-restarts=5/1m"]), Some(RestartLimit { most, within, then: GiveUp::Out }));
        let exits = limit(&["--max-restarts=5/1m", "--give-up=exit"]);
        assert_eq!(exits, Some(RestartLimit { most, within, then: GiveUp::Exit }));
        let message = refused(&["--give-up=exit"]);
        assert!(
            message.contains("--give-up: say when, with --max-restarts such as 5/1m, or leave it out"),
            "{message}"
        );
    }
}

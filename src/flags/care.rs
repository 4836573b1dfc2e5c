//! When workers are replaced though they serve, and what becomes of a slot whose workers end too often.

use std::time::Duration;

use crate::config::{CareConfig, HealthCheck, HealthPath, Often, Size};
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

    /// Ask each worker for this path from time to time (/healthz); one that does not answer, or with a status of 500 or
    /// more, counts as hung [default: off]
    ///
    /// The request comes over a connection that the worker gets as any other, from 127.0.0.1. Of a worker that speaks TLS only
    /// that it answers at all is asked. With --hang-kill such a worker is killed and replaced. Not with --dialect listen-fds:
    /// workers share an address there, and haft cannot ask one of them.
    #[arg(long, value_name = "PATH")]
    health_check: Option<HealthPath>,

    /// The time from one --health-check to the next
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = health_interval)]
    health_interval: Duration,

    /// How long a worker may take to answer a --health-check
    ///
    /// At most --hold-timeout (or 1s, if that is longer): after it the connection would go to another worker.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time::positive)]
    health_timeout: Duration,
}

/// Checks are looked after twice a second.
fn health_interval(text: &str) -> Result<Duration, String> {
    let interval = time::positive(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_secs(1) { Err("it must be 1s or more".to_owned()) } else { Ok(interval) }
}

impl CareFlags {
    pub(super) fn resolve(self, provenance: &Provenance) -> Result<CareConfig, FlagsError> {
        if self.max_restarts.is_none() && self.give_up.is_some() {
            return Err(FlagsError::NeverGivesUp { name: provenance.name("give-up") });
        }
        for flag in ["health-interval", "health-timeout"] {
            if self.health_check.is_none() && provenance.is_given(flag) {
                return Err(FlagsError::NothingToAsk { name: provenance.name(flag) });
            }
        }
        let then = self.give_up.unwrap_or(GiveUp::Out);
        let limit = |Often { most, within }| RestartLimit { most, within, then };
        let (interval, timeout) = (self.health_interval, self.health_timeout);
        Ok(CareConfig {
            max_memory: self.max_memory,
            max_age: self.max_age,
            restarts: self.max_restarts.map(limit),
            health: self.health_check.map(|path| HealthCheck { path, interval, timeout }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::CareConfig;
    use crate::flags::testing::{config, refused};
    use crate::pool::{GiveUp, RestartLimit};

    #[test]
    fn workers_may_be_as_large_and_old_as_they_like_unless_a_flag_says_otherwise() {
        assert_eq!(config(&[]).care, CareConfig::default());
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
    fn workers_are_asked_for_a_path_every_five_seconds_or_not_at_all() {
        let health = |args: &[&str]| config(args).care.health.expect("a check");
        let check = health(&["--health-check=/healthz?deep=1"]);
        assert_eq!(
            (check.path.as_str(), check.interval, check.timeout.as_secs()),
            ("/healthz?deep=1", Duration::from_secs(5), 2)
        );
        let check = health(&["--health-check=/", "--health-interval=1s", "--health-timeout=100ms"]);
        assert_eq!((check.interval.as_secs(), check.timeout.as_millis()), (1, 100));
        for (flags, cure) in [
            (&["--health-check=healthz"][..], "such as /healthz"),
            (&["--health-check=/", "--health-interval=999ms"], "1s or more"),
            (&["--health-interval=1s"], "--health-interval is of no use without --health-check: give it a path"),
            (&["--health-timeout=1s"], "--health-timeout is of no use without --health-check"),
            (
                &["--health-check=/", "--dispatch=kernel", "--dialect=listen-fds", "--", "x"],
                "haft cannot give a connection to a program with the dialect listen-fds",
            ),
        ] {
            assert!(refused(flags).contains(cure), "{}", refused(flags));
        }
        // One that is asked can be found to hang.
        assert!(config(&["--health-check=/", "--hang-timeout=0", "--hang-kill"]).hang_kill);
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

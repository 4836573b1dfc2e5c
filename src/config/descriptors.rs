//! How many descriptors the master needs, and whether it may have them.

use std::fmt;

use super::Config;

/// Descriptors the master holds for one worker: both ends of the channel, the pidfd, the pipes of its standard output
/// and error, its page of the scoreboard, and one for the process that serves if it is another.
pub(crate) const DESCRIPTORS_PER_WORKER: u64 = 7;

/// Descriptors the master holds for itself: standard streams, the event loop, signals, the spare one for accepting when
/// there are none left, the admin listener and its clients.
const DESCRIPTORS_FOR_ITSELF: u64 = 32;

/// How a limit on open descriptors compares with what the configuration can need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headroom {
    /// Every worker may have `max_in_flight` connections on their way at once.
    Ample,
    /// It works, but in a burst accepting can stop for want of descriptors. Worth a warning: `Display` is its text.
    Low {
        /// Descriptors the master holds when every worker has `max_in_flight` connections on their way.
        full: u64,
        /// The limit (RLIMIT_NOFILE).
        limit: u64,
    },
}

/// The limit on descriptors (RLIMIT_NOFILE) is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooFewDescriptors {
    /// For the master.
    #[error(
        "--workers {workers}: the master needs {least} descriptors for them, but RLIMIT_NOFILE is {limit}: have at most \
         {most_workers} workers, or raise the limit (ulimit -n {least}; LimitNOFILE={least} in a systemd unit)"
    )]
    Master {
        /// So many are configured.
        workers: usize,
        /// What they take at least.
        least: u64,
        /// What there is.
        limit: u64,
        /// So many fit.
        most_workers: u64,
    },
    /// For what a worker is to have.
    #[error(
        "--worker-nofile {asked}: the hard limit is {limit}; raise it (ulimit -Hn {asked}; LimitNOFILE={asked} in a systemd \
         unit), or ask for less"
    )]
    Worker {
        /// What is asked for.
        asked: u64,
        /// What there is.
        limit: u64,
    },
}

impl Config {
    /// Compares the limit on open descriptors of the master (RLIMIT_NOFILE, after it was raised) with what it needs.
    ///
    /// A worker costs the master 7 descriptors and, for each connection on its way to it, the copy that is kept until
    /// the worker has acknowledged. The least is one such copy for each worker; `max_in_flight` of them is the most.
    ///
    /// # Errors
    ///
    /// When not even the least fits.
    pub fn check_descriptors(&self, limit: u64) -> Result<Headroom, TooFewDescriptors> {
        self.check_descriptors_with(limit, 0)
    }

    /// The same, with so many listeners for each worker at least.
    pub(crate) fn check_descriptors_with(&self, limit: u64, groups: usize) -> Result<Headroom, TooFewDescriptors> {
        let (listeners, listeners_each) = self.listeners();
        let fixed = DESCRIPTORS_FOR_ITSELF + listeners;
        let each = DESCRIPTORS_PER_WORKER + listeners_each.max(groups as u64);
        let with_copies = |copies: usize| fixed + self.workers as u64 * (each + copies as u64);
        let (least, full) = (with_copies(1), with_copies(self.max_in_flight));
        if let Some(asked) = self.worker_nofile.filter(|asked| *asked > limit) {
            return Err(TooFewDescriptors::Worker { asked, limit });
        }
        if limit < least {
            let most_workers = limit.saturating_sub(fixed) / (each + 1);
            return Err(TooFewDescriptors::Master { workers: self.workers, least, limit, most_workers });
        }
        Ok(if limit < full { Headroom::Low { full, limit } } else { Headroom::Ample })
    }
}

impl fmt::Display for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ample => f.write_str("the limit on open descriptors is ample"),
            Self::Low { full, limit } => write!(
                f,
                "RLIMIT_NOFILE is {limit}, but a burst can need {full} descriptors; past the limit accepting waits: \
                 raise it (ulimit -n {full}; LimitNOFILE={full} in a systemd unit) or lower --max-in-flight"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    #[test]
    fn the_limit_on_descriptors_is_compared_with_the_least_and_the_most() {
        // 32 for the master and 1 listener; a worker costs 7 and its copies.
        let (least, full) = (33 + 10 * 8, 33 + 10 * (7 + 64));
        let config = config(10, 64);
        assert_eq!(config.check_descriptors(full), Ok(Headroom::Ample));
        assert_eq!(config.check_descriptors(u64::MAX), Ok(Headroom::Ample));
        assert_eq!(config.check_descriptors(full - 1), Ok(Headroom::Low { full, limit: full - 1 }));
        assert_eq!(config.check_descriptors(least), Ok(Headroom::Low { full, limit: least }));
        assert!(config.check_descriptors(least - 1).is_err());
    }

    #[test]
    fn too_few_descriptors_are_refused_with_the_number_of_workers_that_fit() {
        let message = config(1000, 64).check_descriptors(1024).expect_err("too few").to_string();
        for part in ["--workers 1000", "RLIMIT_NOFILE is 1024", "at most 123 workers", "ulimit -n 8033"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(config(123, 64).check_descriptors(1024).is_ok());
        assert!(config(124, 64).check_descriptors(1024).is_err());
    }

    #[test]
    fn workers_get_no_more_than_the_hard_limit() {
        let config = Config { worker_nofile: Some(2048), ..config(1, 1) };
        let message = config.check_descriptors(2047).expect_err("too few").to_string();
        assert!(message.contains("--worker-nofile 2048: the hard limit is 2047; raise it"), "{message}");
        assert!(config.check_descriptors(2048).is_ok());
    }

    #[test]
    fn a_low_limit_is_told_with_its_cure() {
        let headroom = config(16, 64).check_descriptors(1024).expect("it works");
        let text = headroom.to_string();
        for part in ["RLIMIT_NOFILE is 1024", "1169", "--max-in-flight"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

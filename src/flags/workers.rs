//! How many workers there are and what is done with their output.

use std::path::PathBuf;
use std::str::FromStr;

use crate::config::{MAX_WORKERS, WorkersUser};
use crate::flags::error::FlagsError;
use crate::flags::number::{NumberError, number};
use crate::flags::{SWITCH, file_name};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Workers")]
pub(super) struct Workers {
    /// Number of workers; auto is one for each CPU that haft may use
    ///
    /// auto counts the CPUs of the affinity mask (taskset, cpusets), but no more than the CPU quota of the cgroup
    /// allows, rounded down.
    #[arg(short, long, value_name = "N|auto", default_value = "auto")]
    pub(super) workers: Count,

    /// Maximum number of descriptors (connections, files) of a worker [default: as many as haft was started with]
    ///
    /// This is the soft limit, RLIMIT_NOFILE; it can be raised up to the hard limit. Node programs and the built-in
    /// worker raise theirs by themselves.
    #[arg(long, value_name = "N", value_parser = number::<64, { 1 << 30 }, u64>)]
    pub(super) worker_nofile: Option<u64>,

    /// The user that workers run as, with all of its groups; haft itself must be root [default: haft's own user]
    ///
    /// After the start they have no rights beside that user's, and cannot get any. haft keeps of root's rights those to
    /// start and end them and to bind low ports, so it may be unable to read an application's folder that only its user
    /// may read.
    #[arg(long, value_name = "NAME[:GROUP]")]
    pub(super) user: Option<WorkersUser>,

    /// A file with variables for the workers' environment, a line each: NAME=VALUE [default: none]
    ///
    /// Empty lines and those that begin with # do not count, quotes around a value do not belong to it. It is read at
    /// the start and at each reload. The variables that haft itself sets are not changed by it.
    #[arg(long, value_name = "FILE", value_parser = file_name)]
    pub(super) worker_env: Option<PathBuf>,

    /// Put [w0], [w1] and so on before each line that a worker writes [default: on if there are several workers]
    ///
    /// Without it, where haft runs on a terminal, standard output is the terminal itself: the program keeps its colours, and
    /// `haft logs` has its standard error alone.
    #[arg(long, value_name = SWITCH, action = clap::ArgAction::Set)]
    pub(super) prefix_output: Option<bool>,
}

/// The configured number of workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Count {
    Auto,
    Exactly(usize),
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum CountError {
    #[error("at least one worker is needed")]
    Zero,
    #[error("{0}, or auto")]
    Unclear(NumberError),
}

impl FromStr for Count {
    type Err = CountError;

    fn from_str(text: &str) -> Result<Self, CountError> {
        match text {
            "auto" => Ok(Self::Auto),
            "0" => Err(CountError::Zero),
            _ => number::<1, { MAX_WORKERS as u64 }, usize>(text).map(Self::Exactly).map_err(CountError::Unclear),
        }
    }
}

impl Count {
    /// The number of workers.
    ///
    /// For `auto` the standard library counts the CPUs of sched_getaffinity(2), but no more than the least `cpu.max`
    /// (cgroup v2) or `cpu.cfs_quota_us / cpu.cfs_period_us` (v1) from our cgroup up to the root, rounded down and at
    /// least 1 (library/std/src/sys/thread/unix.rs).
    pub(super) fn resolve(self) -> Result<usize, FlagsError> {
        match self {
            Self::Exactly(n) => Ok(n),
            Self::Auto => std::thread::available_parallelism()
                .map(|cpus| cpus.get().min(MAX_WORKERS))
                .map_err(FlagsError::UnknownCpus),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::flags::testing::{config, refused};

    #[test]
    fn workers_is_a_number_or_auto() {
        assert_eq!(config(&["-w", "4"]).workers, 4);
        assert_eq!(config(&["--workers", "1024"]).workers, 1024);
        let cpus = std::thread::available_parallelism().expect("CPUs").get();
        assert_eq!(config(&["-w", "auto"]).workers, cpus);
        assert_eq!(config(&[]).workers, cpus);
    }

    #[test]
    fn a_wrong_number_of_workers_is_refused_with_the_cure() {
        for (value, why) in [
            ("0", "at least one worker is needed"),
            ("1025", "write a number from 1 to 1024, or auto"),
            ("-1", "unexpected argument"),
            ("four", "a number from 1 to 1024, or auto"),
            ("99999999999999999999", "a number from 1 to 1024, or auto"),
        ] {
            assert!(refused(&["--workers", value]).contains(why), "{}", refused(&["--workers", value]));
        }
    }

    #[test]
    fn the_limit_on_descriptors_is_haft_s_own_unless_another_is_named() {
        assert_eq!(config(&[]).worker_nofile, None);
        assert_eq!(config(&["--worker-nofile", "65536"]).worker_nofile, Some(65536));
        assert!(refused(&["--worker-nofile", "63"]).contains("write a number from 64"));
    }

    #[test]
    fn workers_may_run_as_another_user() {
        assert_eq!(config(&[]).user, None);
        for text in ["app", "app:www-data", "1000:1000"] {
            assert_eq!(config(&["--user", text]).user.expect("a user").to_string(), text);
        }
        for text in ["", ":", "app:", ":www-data", "a:b:c", "a/b"] {
            assert!(refused(&["--user", text]).contains("write NAME or NAME:GROUP"), "{text}");
        }
    }

    #[test]
    fn the_output_of_several_workers_is_marked_unless_the_flag_says_otherwise() {
        let marks = |args: &[&str]| config(args).marks_output();
        assert!(!marks(&["-w", "1"]));
        assert!(marks(&["-w", "2"]));
        assert!(marks(&["-w", "1", "--prefix-output"]));
        assert!(!marks(&["-w", "2", "--prefix-output=false"]));
        assert!(refused(&["--prefix-output=yes"]).contains("possible values: true, false"));
    }
}

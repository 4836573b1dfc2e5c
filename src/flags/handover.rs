//! How connections go to a worker, and how long things may take.

use std::time::Duration;

use crate::config::DrainSignal;
use crate::flags::number::number;
use crate::flags::time;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Hand-over")]
pub(super) struct HandOver {
    /// Maximum number of connections sent to one worker and not yet acknowledged
    #[arg(long, value_name = "N", default_value = "64", value_parser = number::<1, 65536, usize>)]
    pub(super) max_in_flight: usize,

    /// How long haft polls for the next connection without sleeping, such as 200us; 0 is off
    ///
    /// A connection that arrives within that time does not wait for haft to wake up, which is slow on virtual machines.
    /// The price: haft keeps a CPU busy for this long after each connection.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time::span_or_off)]
    pub(super) busy_poll: Duration,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Timeouts")]
pub(super) struct Timeouts {
    /// How long a connection waits for its own worker before it goes to another
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time::span)]
    pub(super) hold_timeout: Duration,

    /// How long a worker may take to become ready
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time::positive)]
    pub(super) start_timeout: Duration,

    // Less than the 30 s that Kubernetes waits between SIGTERM and SIGKILL unless configured otherwise.
    /// How long workers may take to finish their connections when haft stops or has replaced them
    ///
    /// SIGTERM, SIGQUIT and SIGINT stop haft; a second one ends it at once. After Ctrl-C at a terminal the time is two
    /// seconds.
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = time::span)]
    pub(super) drain_timeout: Duration,

    /// The signal that asks a program to finish: NAME (such as TERM), none, or auto
    ///
    /// A program gets it at once when haft stops. When only its worker is replaced or removed, it gets it when its
    /// connections have ended or a fifth of --drain-timeout is left. auto: SIGTERM for a Node program that handles it
    /// and for a program with --dialect listen-fds (after Ctrl-C: SIGINT), no signal for others. When --drain-timeout
    /// is over, every program gets SIGTERM, and SIGKILL two seconds later.
    #[arg(long, value_name = "NAME|none|auto", default_value = "auto")]
    pub(super) drain_signal: DrainSignal,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::DrainSignal;
    use crate::flags::testing::{config, refused};

    #[test]
    fn in_flight_is_bounded() {
        assert_eq!(config(&[]).max_in_flight, 64);
        assert_eq!(config(&["--max-in-flight", "65536"]).max_in_flight, 65536);
        for value in ["0", "65537"] {
            assert!(refused(&["--max-in-flight", value]).contains("write a number from 1 to 65536"));
        }
    }

    #[test]
    fn nobody_is_kept_awake_unless_asked_to() {
        assert_eq!(config(&[]).busy_poll, Duration::ZERO);
        assert_eq!(config(&["--busy-poll", "200us"]).busy_poll, Duration::from_micros(200));
        assert!(refused(&["--busy-poll", "200"]).contains("give a unit"));
    }

    #[test]
    fn programs_finish_at_a_signal_that_is_named() {
        assert_eq!(config(&[]).drain_signal, DrainSignal::Auto);
        assert_eq!(config(&["--drain-signal", "none"]).drain_signal, DrainSignal::None);
        assert_eq!(config(&["--drain-signal", "usr2"]).drain_signal.to_string(), "USR2");
        assert!(refused(&["--drain-signal", "KILL"]).contains("write auto, none, or one of HUP"));
    }

    #[test]
    fn timeouts_have_units() {
        let defaults = config(&[]);
        assert_eq!(defaults.hold_timeout, Duration::from_secs(5));
        assert_eq!(defaults.start_timeout, Duration::from_secs(30));
        assert_eq!(defaults.drain_timeout, Duration::from_secs(25));
        assert_eq!(config(&["--hold-timeout", "0s"]).hold_timeout, Duration::ZERO);
        assert_eq!(config(&["--start-timeout", "250ms"]).start_timeout, Duration::from_millis(250));
        assert_eq!(config(&["--drain-timeout", "1h"]).drain_timeout, Duration::from_secs(3600));
        assert!(refused(&["--hold-timeout", "5"]).contains("give a unit, such as 5s or 5000ms"));
        assert!(refused(&["--start-timeout", "0s"]).contains("it must be more than 0"));
        assert!(refused(&["--drain-timeout", "soon"]).contains("write a time such as"));
    }
}

//! The signal by which a program learns that it is to finish.

use std::fmt;
use std::str::FromStr;

use nix::sys::signal::Signal;

use super::UnknownWord;

/// The signals that programs finish at. SIGKILL and the like are not for that.
const SIGNALS: [(&str, Signal); 7] = [
    ("HUP", Signal::SIGHUP),
    ("INT", Signal::SIGINT),
    ("QUIT", Signal::SIGQUIT),
    ("USR1", Signal::SIGUSR1),
    ("USR2", Signal::SIGUSR2),
    ("TERM", Signal::SIGTERM),
    ("WINCH", Signal::SIGWINCH),
];

/// The signal by which a program learns that it is to finish, before its time for that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainSignal {
    /// SIGTERM (SIGINT for Ctrl-C) for a Node program that handles it, and for one that takes its listeners over. A
    /// worker of haft's own dialect is asked on its channel alone.
    Auto,
    /// None.
    None,
    /// This one, for every worker.
    Named(Signal),
}

impl FromStr for DrainSignal {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            _ => SIGNALS
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, signal)| Self::Named(*signal))
                .ok_or(UnknownWord("auto, none, or one of HUP, INT, QUIT, USR1, USR2, TERM and WINCH")),
        }
    }
}

impl fmt::Display for DrainSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Named(signal) => signal.as_str().trim_start_matches("SIG"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_named_with_or_without_its_prefix() {
        for (text, expected) in [
            ("auto", DrainSignal::Auto),
            ("none", DrainSignal::None),
            ("TERM", DrainSignal::Named(Signal::SIGTERM)),
            ("SIGUSR2", DrainSignal::Named(Signal::SIGUSR2)),
            ("quit", DrainSignal::Named(Signal::SIGQUIT)),
        ] {
            let read = text.parse::<DrainSignal>();
            assert_eq!(read, Ok(expected), "{text}");
            assert_eq!(expected.to_string().parse(), Ok(expected), "{text}");
        }
        for wrong in ["KILL", "STOP", "SEGV", "15", "", "SIG", "SIGSIGTERM"] {
            let error = wrong.parse::<DrainSignal>().expect_err(wrong).to_string();
            assert!(error.starts_with("write auto, none, or one of HUP"), "{error}");
        }
    }
}

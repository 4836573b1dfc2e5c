//! Messages of a program to its primary (`process.send`) for which haft is no primary: which library they are of, as far
//! as that can be seen, and what its user is to do.

/// How much of a message is looked at: libraries name themselves at the beginning.
const MAX_LOOKED_AT: usize = 4096;

/// A library whose workers send messages to a primary of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Library {
    /// log4js: each line goes to the primary, which writes it.
    Log4js,
    /// rate-limiter-flexible (RateLimiterCluster): the counters are the primary's.
    RateLimiterFlexible,
    /// @express-rate-limit/cluster-memory-store: the counters are the primary's.
    ExpressRateLimit,
    /// @pm2/io: figures for pm2.
    Pm2,
    /// Something else.
    Unknown,
}

impl Library {
    /// The one that sent this frame.
    pub fn of(frame: &[u8]) -> Self {
        let looked_at = &frame[..frame.len().min(MAX_LOOKED_AT)];
        let has = |marker: &str| memchr::memmem::find(looked_at, marker.as_bytes()).is_some();
        match () {
            () if has("log4js:message") => Self::Log4js,
            () if has("rate_limiter_flexible") => Self::RateLimiterFlexible,
            () if has("express-rate-limit") => Self::ExpressRateLimit,
            () if has("axm:") => Self::Pm2,
            () => Self::Unknown,
        }
    }

    /// What is lost, and the cure.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Log4js => {
                "log4js sends its lines to a primary that is to write them, and haft is none: they are lost. Let each \
                 worker write them: log4js.configure({ disableClustering: true, ... })"
            }
            Self::RateLimiterFlexible => {
                "rate-limiter-flexible asks a primary for its counters, and haft is none: its requests fail. Use a \
                 store that all workers share, such as RateLimiterRedis, or RateLimiterMemory in each worker"
            }
            Self::ExpressRateLimit => {
                "express-rate-limit asks a primary for its counters, and haft is none: its requests fail. Use a store \
                 that all workers share, such as rate-limit-redis"
            }
            Self::Pm2 => {
                "the program sends figures to pm2, and haft is not pm2: they are lost (/metrics has haft's own)"
            }
            Self::Unknown => {
                "the program sends messages to its primary (process.send), and haft has no use for them. If the other \
                 workers are to get them, say --relay-messages; what all workers must know belongs into a store that \
                 they share, such as Redis"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_known_by_its_messages() {
        for (frame, library) in [
            (&br#"{"topic":"log4js:message","data":"{}"}"#[..], Library::Log4js),
            (
                br#"{"channel":"rate_limiter_flexible","id":"x","data":{"func":"consume"}}"#,
                Library::RateLimiterFlexible,
            ),
            (br#"{"type":"axm:monitor","data":{}}"#, Library::Pm2),
            (br#"{"chat":"log4js is fine"}"#, Library::Unknown),
            (b"", Library::Unknown),
        ] {
            assert_eq!(Library::of(frame), library, "{}", String::from_utf8_lossy(frame));
        }
    }
}

//! What keeps a client on one worker.

use std::fmt;
use std::str::FromStr;

use crate::peek::{SourceError, ValueSource};

/// Most criteria in a list.
pub const MAX_CRITERIA: usize = 8;

/// What sticks to a slot: the first of a list that a connection has, and what decides when it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// Not empty, unless the address or nothing decides alone.
    criteria: Vec<Criterion>,
    rest: Rest,
}

/// What the first request of a connection may have that sticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Criterion {
    /// The session that it names.
    Session,
    /// A value of the application's.
    Value(ValueSource),
}

/// What decides where a connection goes that has nothing of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// The list does not say: the fewest sessions where one is opened, and otherwise the address.
    Unsaid,
    /// The client's address.
    Ip,
    /// Nothing: the worker with the least on its way, then round robin.
    None,
}

/// A text is no [`Affinity`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AffinityError {
    /// A word of the list is none of those that there are.
    #[error(
        "{word:?}: write ip, session, none, query:NAME, cookie:NAME, header:NAME or path:N, or a list such as session,cookie:uid,ip"
    )]
    Unknown {
        /// The word.
        word: String,
    },
    /// The name or number behind it is wrong.
    #[error("{word:?}: {why}")]
    Source {
        /// The word.
        word: String,
        /// What is wrong with it.
        why: SourceError,
    },
    /// Every client has an address, and nothing is read past `none`.
    #[error("{0} decides for every client: put it last")]
    NotLast(Rest),
    /// A word stands there twice.
    #[error("{word:?} is there twice: leave one out")]
    Twice {
        /// The word.
        word: String,
    },
    /// The list is too long.
    #[error("a list has {MAX_CRITERIA} entries at most")]
    TooMany,
}

impl Affinity {
    /// The criteria in order.
    pub fn criteria(&self) -> &[Criterion] {
        &self.criteria
    }

    /// What decides if none of them does.
    pub fn rest(&self) -> Rest {
        self.rest
    }

    /// Whether the client's address decides alone, which the kernel can see, too.
    pub fn is_address_alone(&self) -> bool {
        self.criteria.is_empty() && self.rest == Rest::Ip
    }

    /// Whether nothing sticks.
    pub fn is_nothing(&self) -> bool {
        self.criteria.is_empty() && self.rest == Rest::None
    }

    /// Whether sessions stick, so that workers have to tag them.
    pub fn has_sessions(&self) -> bool {
        self.criteria.contains(&Criterion::Session)
    }

    /// Whether the first request of a connection must be looked at, and a secret is needed for what is there.
    pub fn reads_requests(&self) -> bool {
        !self.criteria.is_empty()
    }
}

impl Criterion {
    /// Whether all headers of a request must have come before it can be decided.
    pub fn needs_headers(&self) -> bool {
        matches!(self, Self::Value(source) if source.needs_headers())
    }
}

impl FromStr for Affinity {
    type Err = AffinityError;

    fn from_str(text: &str) -> Result<Self, AffinityError> {
        let mut affinity = Self { criteria: Vec::new(), rest: Rest::Unsaid };
        for word in text.split(',') {
            if affinity.rest != Rest::Unsaid {
                return Err(AffinityError::NotLast(affinity.rest));
            }
            let criterion = match word {
                "ip" => {
                    affinity.rest = Rest::Ip;
                    continue;
                }
                "none" => {
                    affinity.rest = Rest::None;
                    continue;
                }
                "session" => Criterion::Session,
                word => Criterion::Value(word.parse().map_err(|why| match why {
                    SourceError::Unknown => AffinityError::Unknown { word: word.to_owned() },
                    why => AffinityError::Source { word: word.to_owned(), why },
                })?),
            };
            if affinity.criteria.contains(&criterion) {
                return Err(AffinityError::Twice { word: word.to_owned() });
            }
            if affinity.criteria.len() == MAX_CRITERIA {
                return Err(AffinityError::TooMany);
            }
            affinity.criteria.push(criterion);
        }
        Ok(affinity)
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, criterion) in self.criteria.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            criterion.fmt(f)?;
        }
        match self.rest {
            Rest::Unsaid => Ok(()),
            rest if self.criteria.is_empty() => rest.fmt(f),
            rest => write!(f, ",{rest}"),
        }
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session => f.write_str("session"),
            Self::Value(source) => source.fmt(f),
        }
    }
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsaid => "what is left",
            Self::Ip => "ip",
            Self::None => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_as_it_is_read() {
        for text in [
            "ip",
            "none",
            "session",
            "session,ip",
            "query:room",
            "session,cookie:uid,ip",
            "header:x-user,path:2,query:a b,none",
        ] {
            assert_eq!(text.parse::<Affinity>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_can_be_no_list_is_refused_with_the_cure() {
        for (text, message) in [
            ("", "\"\": write ip, session, none, query:NAME"),
            ("IP", "\"IP\": write ip"),
            ("session, ip", "\" ip\": write ip"),
            ("cookie", "\"cookie\": write ip"),
            ("cookie:", "\"cookie:\": a name has 1 to 64 characters"),
            ("path:0", "\"path:0\": write path:N, N from 1 to 16"),
            ("ip,session", "ip decides for every client: put it last"),
            ("none,ip", "none decides for every client: put it last"),
            ("ip,ip", "ip decides for every client"),
            ("session,session", "\"session\" is there twice"),
            ("header:x,header:X", "\"header:X\" is there twice"),
            ("path:1,path:2,path:3,path:4,path:5,path:6,path:7,path:8,path:9", "a list has 8 entries at most"),
        ] {
            let error = text.parse::<Affinity>().expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn what_must_be_looked_at_follows_from_the_list() {
        let of = |text: &str| text.parse::<Affinity>().expect(text);
        assert!(of("ip").is_address_alone() && !of("ip").reads_requests());
        assert!(of("none").is_nothing() && !of("none").is_address_alone());
        assert!(of("session,ip").has_sessions() && !of("session,ip").is_address_alone());
        assert!(of("query:x").reads_requests() && !of("query:x").has_sessions());
        let needs = of("session,query:x,cookie:x").criteria().iter().map(Criterion::needs_headers).collect::<Vec<_>>();
        assert_eq!(needs, [false, false, true]);
    }
}

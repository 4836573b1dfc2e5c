//! The name of a host, as it stands in tags.

use std::fmt;
use std::str::FromStr;

/// The name of a host among several: two letters or digits of ASCII. `00` is the name of a host that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId([u8; 2]);

/// A text is no [`HostId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write one or two letters or digits, such as A or b7; 0 is the name of a host that has none")]
pub struct HostIdError;

impl HostId {
    /// Of a host that has no name.
    pub const NONE: Self = Self(*b"00");

    /// Whether it is a name.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// Whether both have a name, and not the same one.
    pub(super) fn is_other(self, other: Self) -> bool {
        self != other && self.is_some() && other.is_some()
    }

    /// The name in a tag. Any bytes may stand there.
    pub(super) fn of_tag(bytes: [u8; 2]) -> Option<Self> {
        bytes.iter().all(u8::is_ascii_alphanumeric).then_some(Self(bytes))
    }

    /// As it stands in a tag.
    pub(super) fn bytes(self) -> [u8; 2] {
        self.0
    }
}

impl Default for HostId {
    fn default() -> Self {
        Self::NONE
    }
}

impl FromStr for HostId {
    type Err = HostIdError;

    /// A name of one character has a 0 before it: `A` is `0A`.
    fn from_str(text: &str) -> Result<Self, HostIdError> {
        let bytes = match *text.as_bytes() {
            [one] => [b'0', one],
            [one, other] => [one, other],
            _ => return Err(HostIdError),
        };
        Self::of_tag(bytes).filter(|host| host.is_some()).ok_or(HostIdError)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = self.0.map(char::from);
        write!(f, "{one}{other}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_or_two_letters_or_digits() {
        for (text, written) in [("A", "0A"), ("0A", "0A"), ("b7", "b7"), ("9", "09"), ("Zz", "Zz")] {
            let host: HostId = text.parse().expect(text);
            assert_eq!((host.to_string().as_str(), host.to_string().parse()), (written, Ok(host)));
        }
        for text in ["", "0", "00", "abc", "a-", "_", "\u{e4}", "a b"] {
            assert_eq!(text.parse::<HostId>(), Err(HostIdError), "{text:?}");
        }
    }

    #[test]
    fn a_host_without_a_name_is_no_other() {
        let [a, b]: [HostId; 2] = ["A", "B"].map(|text| text.parse().expect(text));
        assert!(a.is_other(b) && !a.is_other(a));
        assert!(!a.is_other(HostId::NONE) && !HostId::NONE.is_other(a));
    }
}

//! Where haft is watched and controlled.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::UnknownWord;
use crate::addr::{ListenAddr, ListenAddrError};

/// Most characters of a name.
const MAX_NAME: usize = 64;

/// Where metrics, status and control are served: what follows `--admin`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Admin {
    /// On a Unix socket in a folder where `haft status` and the like look for it.
    #[default]
    Default,
    /// Nowhere (written `off`).
    Off,
    /// On this Unix socket instead, or at this TCP address beside it.
    At(ListenAddr),
}

impl Admin {
    /// The address, if one was given.
    pub fn addr(&self) -> Option<&ListenAddr> {
        match self {
            Self::Default | Self::Off => None,
            Self::At(addr) => Some(addr),
        }
    }

    /// The TCP address, if one was given.
    pub fn tcp(&self) -> Option<&ListenAddr> {
        self.addr().filter(|addr| !matches!(addr, ListenAddr::Unix(_)))
    }

    /// Whether there is a control socket where commands look for one.
    pub fn has_default_socket(&self) -> bool {
        matches!(self, Self::Default) || self.tcp().is_some()
    }
}

impl FromStr for Admin {
    type Err = ListenAddrError;

    /// As [`ListenAddr`], but without a host it is the loopback.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        Ok(Self::At(match text.parse()? {
            ListenAddr::DualStack(port) if !text.starts_with('*') => ListenAddr::Ip((Ipv4Addr::LOCALHOST, port).into()),
            addr => addr,
        }))
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => Ok(()),
            Self::Off => f.write_str("off"),
            // Given back, `:9090` would be a port of the loopback.
            Self::At(ListenAddr::DualStack(port)) => write!(f, "*:{port}"),
            Self::At(addr) => addr.fmt(f),
        }
    }
}

/// A name for this haft, which becomes a part of its control socket's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceName(String);

impl InstanceName {
    /// The name as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is left of a text that may hold anything.
    pub fn of(text: &str) -> Self {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        let name: String = text.chars().map(|letter| if allowed(letter) { letter } else { '-' }).collect();
        let name: String = name.trim_matches(['-', '.']).chars().take(MAX_NAME).collect();
        Self(if name.is_empty() { "haft".to_owned() } else { name })
    }
}

impl FromStr for InstanceName {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let name = Self::of(text);
        if name.0 == text { Ok(name) } else { Err(UnknownWord("up to 64 letters, digits, and . _ - between them")) }
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_part_of_a_file_s_name() {
        for name in ["haft", "api-3000", "a.b_c", "X"] {
            assert_eq!(name.parse::<InstanceName>().expect(name).as_str(), name);
        }
        for wrong in ["", ".", "..", "a/b", "-a", "a b", "ä", "x\0", &"x".repeat(65)] {
            let error = wrong.parse::<InstanceName>().expect_err(wrong).to_string();
            assert!(error.contains("up to 64 letters"), "{error}");
        }
        assert_eq!(InstanceName::of("../my server.js").as_str(), "my-server.js");
        assert_eq!(InstanceName::of("///").as_str(), "haft");
    }
}

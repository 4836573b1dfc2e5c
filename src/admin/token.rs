//! The bearer token that lets someone change things over TCP, and the file that it is kept in.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;

use crate::sys::trust::{self, Untrusted};

/// More than any token needs; keeps a slip such as a log file from being read whole.
const LONGEST: u64 = 4096;
/// Users other than the owner have some right to the file.
const OTHERS: u32 = 0o077;

/// A file that holds one bearer token (RFC 6750, section 2.1), with or without an end of line.
///
/// It is read anew for every use, so that the token can be changed while haft runs: write the new one to another file
/// and rename that over this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    path: PathBuf,
}

/// Why a file cannot serve. Each text names the cure.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be opened or read.
    #[error("{0}: name a file that exists and that haft may read")]
    Unreadable(#[from] io::Error),
    /// A folder, a pipe, a device.
    #[error("it is not a regular file")]
    NoFile,
    /// Its mode (the permission bits) lets others than its owner in.
    #[error("others than its owner may use it (mode {mode:04o}): chmod 600 it")]
    Public {
        /// The permission bits.
        mode: u32,
    },
    /// It is another user's.
    #[error(transparent)]
    Foreign(#[from] Untrusted),
    /// There is nothing in it but white space.
    #[error("it is empty: put a token into it, such as `openssl rand -hex 32` makes")]
    Empty,
    /// It holds more than a token, or what no token may have in it.
    #[error("it holds no token: write one line of letters, digits and -._~+/ (such as `openssl rand -hex 32` makes)")]
    NoToken,
}

/// A token. It is never shown: not in the log, not in an error, not by `Debug`.
pub(super) struct Token(String);

impl TokenFile {
    /// The file at this path. Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file holds a token that only its owner may read.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), TokenFileError> {
        self.read().map(drop)
    }

    /// What the file holds.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn text(&self) -> Result<String, TokenFileError> {
        Ok(self.read()?.0)
    }

    pub(super) fn read(&self) -> Result<Token, TokenFileError> {
        // Without O_NONBLOCK opening a pipe waits for its writer (fifo(7)).
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(TokenFileError::NoFile);
        }
        if metadata.mode() & OTHERS != 0 {
            return Err(TokenFileError::Public { mode: metadata.mode() & 0o7777 });
        }
        trust::check_file_owner(&self.path, &metadata)?;
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        Token::from_text(&bytes)
    }
}

impl Token {
    fn from_text(bytes: &[u8]) -> Result<Self, TokenFileError> {
        let text = bytes.trim_ascii();
        if text.is_empty() {
            return Err(TokenFileError::Empty);
        }
        // RFC 6750: 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"=".
        let (core, _) = text.split_at(text.iter().rposition(|b| *b != b'=').map_or(0, |last| last + 1));
        let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(b);
        match std::str::from_utf8(text) {
            Ok(token) if bytes.len() as u64 <= LONGEST && !core.is_empty() && core.iter().all(fits) => {
                Ok(Self(token.to_owned()))
            }
            _ => Err(TokenFileError::NoToken),
        }
    }

    /// Whether this is the token. Looks at every byte however many are right, so that the time it takes shows nothing
    /// but the length of what was given.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        let token = self.0.as_bytes();
        let differing = given.iter().enumerate().fold(given.len() ^ token.len(), |differing, (index, byte)| {
            differing | usize::from(byte ^ token[index % token.len()])
        });
        std::hint::black_box(differing) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_one_line_of_what_a_header_can_carry() {
        for text in ["secret", "secret\n", "  secret\r\n", "secret=="] {
            let token = Token::from_text(text.as_bytes()).expect(text);
            assert!(token.is(text.trim().as_bytes()), "{text}");
        }
        for (text, why) in [
            ("", "it is empty"),
            (" \n", "it is empty"),
            ("one two", "it holds no token"),
            ("one\ntwo", "it holds no token"),
            ("==", "it holds no token"),
            ("a=b", "it holds no token"),
            ("ä", "it holds no token"),
            ("Bearer x", "it holds no token"),
        ] {
            let error = Token::from_text(text.as_bytes()).err().expect(text).to_string();
            assert!(error.starts_with(why), "{text:?}: {error}");
        }
        assert!(Token::from_text(&[b'x'; LONGEST as usize]).is_ok());
        assert!(Token::from_text(&[b'x'; LONGEST as usize + 1]).is_err());
    }

    #[test]
    fn only_the_whole_token_is_right() {
        let token = Token::from_text(b"secret").expect("a token");
        assert!(token.is(b"secret"));
        for wrong in ["", "s", "secre", "secrets", "Secret", "secretsecret", "secre\0"] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_others_may_use_or_that_is_none_is_refused_with_the_cure() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        let refusal = |path: &Path| TokenFile::new(path).check().expect_err("refused").to_string();
        assert!(refusal(&path).contains("No such file or directory"));
        fs::write(&path, "secret\n").expect("file");
        for mode in [0o644, 0o640, 0o604, 0o620, 0o610] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
            assert_eq!(refusal(&path), format!("others than its owner may use it (mode {mode:04o}): chmod 600 it"));
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
            TokenFile::new(&path).check().expect("a good file");
        }
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65_533), None).expect("chown");
            assert!(refusal(&path).contains("belongs to user 65533"));
        }
        assert_eq!(refusal(folder.path()), "it is not a regular file");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
        assert_eq!(refusal(&pipe), "it is not a regular file");
    }
}

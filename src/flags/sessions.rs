//! The secret behind `--affinity session` and what else a request has that sticks.

use crate::admin::TokenFile;
use crate::config::{Affinity, Sessions, TagSecret};
use crate::flags::error::FlagsError;
use crate::flags::provenance::Provenance;
use crate::route::{HostId, TagKey};

/// The heading of these flags in the help, which sets them apart.
pub(super) const HEADING: &str = "Sessions (with --affinity session and what else stands in a request)";

/// Fewer characters than this are too easily tried out.
const SHORTEST: usize = 16;
/// One that signs, and one that it takes the place of.
const MAX_KEYS: usize = 2;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct SessionFlags {
    /// The secret for session tags and hashed values, 16 characters or more, or @FILE; a second one is accepted in tags
    /// [default: random]
    ///
    /// With a fixed secret, clients find their slot again after haft has been restarted. To change it, give the new one
    /// first and the old one second until the old sessions have ended. Prefer a file (its first line, mode 600): the
    /// list of processes shows what is typed.
    #[arg(long, value_name = "SECRET")]
    tag_key: Vec<String>,

    /// This host's name in session ids, one or two letters or digits, so that a proxy before several hosts can route by
    /// them [default: none]
    ///
    /// Each host has another name and all have the same --tag-key. `haft front` writes the proxy's configuration.
    #[arg(long, value_name = "ID")]
    host_id: Option<HostId>,
}

impl SessionFlags {
    /// Reads the secret's file, if there is one.
    pub(super) fn resolve(
        self,
        paths: Vec<String>,
        sticky_paths: Vec<String>,
        affinity: &Affinity,
        provenance: &Provenance,
    ) -> Result<Sessions, FlagsError> {
        if !affinity.reads_requests() && !self.tag_key.is_empty() {
            return Err(FlagsError::NoSessions { name: provenance.name("tag-key") });
        }
        if self.host_id.is_some() && !affinity.has_sessions() {
            return Err(FlagsError::HostWithoutSessions { name: provenance.name("host-id") });
        }
        if self.host_id.is_some() && self.tag_key.is_empty() {
            return Err(FlagsError::HostWithoutKey { name: provenance.name("host-id") });
        }
        if affinity.is_nothing() && !sticky_paths.is_empty() {
            return Err(FlagsError::NothingSticks { name: provenance.name("sticky-path") });
        }
        if self.tag_key.len() > MAX_KEYS {
            return Err(FlagsError::TooManyKeys { name: provenance.name("tag-key"), most: MAX_KEYS });
        }
        let keys = self.tag_key.iter().map(|text| secret(text, provenance)).collect::<Result<Vec<_>, _>>()?;
        let key = keys.into_iter().reduce(TagKey::and);
        let tag_key = key.map(|key| TagSecret { said: self.tag_key, key });
        Ok(Sessions { paths, sticky_paths, tag_key, host_id: self.host_id })
    }
}

fn secret(text: &str, provenance: &Provenance) -> Result<TagKey, FlagsError> {
    let name = || provenance.name("tag-key");
    Ok(match text.strip_prefix('@') {
        Some(path) => {
            let read = TokenFile::new(path).text();
            TagKey::of_text(&read.map_err(|fault| FlagsError::Token { name: name(), path: path.into(), fault })?)
        }
        None if text.chars().count() < SHORTEST => {
            return Err(FlagsError::ShortSecret { name: name(), least: SHORTEST });
        }
        None => TagKey::of_text(text),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::flags::testing::{Folder, config, refused};
    use crate::route::TagKey;

    #[test]
    fn a_secret_is_a_text_or_in_a_file_of_its_owner() {
        let key =
            |args: &[&str]| config(&[&["--affinity=session"], args].concat()).sessions.tag_key.map(|secret| secret.key);
        assert_eq!(key(&[]), None);
        assert_eq!(key(&["--tag-key=a secret of some length"]), Some(TagKey::of_text("a secret of some length")));
        let both = ["--tag-key=a secret of some length", "--tag-key=another of some length"];
        let expected = TagKey::of_text("a secret of some length").and(TagKey::of_text("another of some length"));
        assert_eq!(key(&both), Some(expected));
        assert!(refused(&[&["--affinity=session", both[0]], &both[..]].concat()).contains("--tag-key: give 2 at most"));
        let folder = Folder::new();
        let path = format!("{}/token", folder.path());
        let text = fs::read_to_string(&path).expect("a file");
        assert_eq!(key(&[&format!("--tag-key=@{path}")]), Some(TagKey::of_text(text.trim())));
        assert!(refused(&["--affinity=session", "--tag-key=short"]).contains("--tag-key: give 16 characters or more"));
        assert!(refused(&["--affinity=session", "--tag-key=@/nowhere"]).contains("--tag-key /nowhere: No such file"));
    }

    #[test]
    fn a_host_has_a_name_where_sessions_stick_and_all_hosts_have_one_key() {
        let key = "--tag-key=a secret of some length";
        let given = config(&["--affinity=session,cookie:uid", key, "--host-id=A"]).sessions.host_id;
        assert_eq!(given.map(|host| host.to_string()).as_deref(), Some("0A"));
        assert_eq!(config(&[]).sessions.host_id, None);
        assert!(refused(&["--host-id=A"]).contains("--host-id: it is for session ids: add --affinity session"));
        let message = refused(&["--affinity=session", "--host-id=A"]);
        assert!(message.contains("--host-id: give --tag-key, too, the same one on every host"), "{message}");
        assert!(refused(&["--affinity=session", key, "--host-id=a-"]).contains("write one or two letters or digits"));
    }

    #[test]
    fn what_is_for_sessions_needs_them_to_stick() {
        assert!(refused(&["--tag-key=a secret of some length"]).contains("needs --affinity session"));
        assert!(config(&["--affinity=query:room", "--tag-key=a secret of some length"]).sessions.tag_key.is_some());
        assert!(refused(&["--affinity=none", "--sticky-path=/a/"]).contains("--sticky-path: it has no effect"));
    }

    #[test]
    fn the_path_of_socket_io_is_for_a_command_too_where_sessions_stick() {
        assert_eq!(config(&["--path=/a/"]).sessions.paths, ["/a/"]);
        let two = ["--affinity=session", "--path=/a/", "--path=b", "--", "x"];
        assert_eq!(config(&two).sessions.paths, ["/a/", "/b/"]);
        assert!(refused(&two[..3]).contains("--path: the built-in Socket.IO worker has one path"));
        assert!(refused(&["--path=/a/", "--", "x"]).contains("--path belongs to the built-in"));
    }
}

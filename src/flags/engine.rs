//! The built-in Socket.IO worker, with the names and defaults of Socket.IO's own server options.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

use crate::config::{Confinement, EngineConfig, Transport};
use crate::flags::SWITCH;
use crate::flags::error::{FlagsError, FolderFault};
use crate::flags::number::number;
use crate::flags::provenance::Provenance;
use crate::flags::time;

/// The heading of these flags in the help, which sets them apart.
pub(super) const HEADING: &str = "Built-in Socket.IO worker (when no COMMAND is given)";

/// Keeps a slip of the keyboard from giving a worker's whole memory to one message.
const MAX_MESSAGE: u64 = 1 << 30;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct EngineFlags {
    /// The path of Socket.IO's requests; for a COMMAND with --affinity session it is repeatable, and Node programs
    /// report theirs by the preload
    #[arg(long, value_name = "PATH", default_value = "/socket.io/", value_parser = request_path)]
    pub(super) path: Vec<String>,

    /// Do not serve the client bundle (socket.io.js and its variants) below PATH
    #[arg(long, value_name = SWITCH, action = clap::ArgAction::Set)]
    no_serve_client: bool,

    /// The transports that clients may use: polling, websocket, or both
    #[arg(long, value_name = "LIST", default_value = "polling,websocket", value_delimiter = ',')]
    transports: Vec<Transport>,

    /// Time between two heartbeats, in milliseconds or with a unit (25s)
    #[arg(long, value_name = "MS", default_value = "25000", value_parser = time::millis)]
    ping_interval: Duration,

    /// How long a client may take to answer a heartbeat, in milliseconds or with a unit
    #[arg(long, value_name = "MS", default_value = "20000", value_parser = time::millis)]
    ping_timeout: Duration,

    /// How long an upgrade to WebSocket may take, in milliseconds or with a unit
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = time::millis)]
    upgrade_timeout: Duration,

    /// Largest message, in bytes
    #[arg(long, value_name = "BYTES", default_value = "1000000", value_parser = number::<1, MAX_MESSAGE, u64>)]
    max_payload: u64,

    /// A site whose pages may call, such as https://example.org, or * for every site; repeatable. Once a site is named,
    /// WebSockets from other sites are refused [default: none]
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    cors_origin: Vec<String>,

    /// The folder to serve at / instead of the chat page; symbolic links out of it are not followed [default: none]
    #[arg(long = "static", value_name = "DIR", value_parser = folder)]
    static_dir: Option<PathBuf>,

    /// The dist folder of npm's socket.io-client [default: searched in node_modules]
    #[arg(long, value_name = "DIR", value_parser = folder)]
    client_dist: Option<PathBuf>,

    /// Confine each worker once it has started, by landlock and seccomp: it can run no program, open no file but those it
    /// serves, and make no socket. auto: as far as the kernel can
    #[arg(long, value_name = "auto|off", default_value_t)]
    confine: Confinement,
}

impl EngineFlags {
    /// Checks what concerns more than one value, and that the folders are there.
    pub(super) fn resolve(self, provenance: &Provenance) -> Result<EngineConfig, FlagsError> {
        let mut transports = self.transports;
        transports.sort_by_key(|transport| *transport as u8);
        transports.dedup();
        if self.cors_origin.len() > 1 && self.cors_origin.iter().any(|origin| origin == "*") {
            return Err(FlagsError::EveryOriginAndMore { name: provenance.name("cors-origin") });
        }
        for (key, dir, file) in [("static", &self.static_dir, None), ("client-dist", &self.client_dist, Some(CLIENT))] {
            if let Some(dir) = dir {
                check_folder(dir, file).map_err(|fault| FlagsError::Folder {
                    name: provenance.name(key),
                    path: dir.clone(),
                    fault,
                })?;
            }
        }
        let mut paths = self.path.into_iter();
        let (Some(path), None) = (paths.next(), paths.next()) else {
            return Err(FlagsError::OnePath { name: provenance.name("path") });
        };
        Ok(EngineConfig {
            path,
            serve_client: !self.no_serve_client,
            transports,
            ping_interval: self.ping_interval,
            ping_timeout: self.ping_timeout,
            upgrade_timeout: self.upgrade_timeout,
            max_payload: self.max_payload,
            cors_origin: self.cors_origin,
            static_dir: self.static_dir,
            client_dist: self.client_dist,
            confine: self.confine,
        })
    }
}

/// The file by which the dist folder of socket.io-client is known.
const CLIENT: &str = "socket.io.js";

fn check_folder(dir: &Path, holds: Option<&'static str>) -> Result<(), FolderFault> {
    if !dir.metadata()?.is_dir() {
        return Err(FolderFault::NoFolder);
    }
    match holds {
        Some(file) if !dir.join(file).is_file() => Err(FolderFault::Lacks(file)),
        _ => Ok(()),
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ValueError {
    #[error("write a path such as /socket.io/")]
    Path,
    #[error("`/` is where the page is, write a path such as /socket.io/")]
    Root,
    #[error("write a site such as https://example.org (no path, no slash at the end), or *")]
    Origin,
    #[error("the name of the folder is missing")]
    NoName,
}

/// A request path, given a slash at both ends.
pub(super) fn request_path(text: &str) -> Result<String, ValueError> {
    let inner = text.strip_prefix('/').unwrap_or(text);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    // The characters of a path in RFC 3986, section 3.3; segments are neither empty nor relative.
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%".contains(c);
    match inner {
        "" if text == "/" => Err(ValueError::Root),
        _ if inner.split('/').any(|part| matches!(part, "" | "." | "..") || !part.chars().all(fits)) => {
            Err(ValueError::Path)
        }
        _ => Ok(format!("/{inner}/")),
    }
}

/// An origin as a browser sends it (RFC 6454, section 6.2): scheme, host, perhaps a port, and nothing after that.
fn origin(text: &str) -> Result<String, ValueError> {
    let uri = || text.parse::<Uri>().ok();
    let whole = |uri: Uri| Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?));
    match text {
        "*" => Ok(text.to_owned()),
        _ if !text.contains('@') && uri().and_then(whole).as_deref() == Some(text) => Ok(text.to_ascii_lowercase()),
        _ => Err(ValueError::Origin),
    }
}

fn folder(text: &str) -> Result<PathBuf, ValueError> {
    if text.is_empty() { Err(ValueError::NoName) } else { Ok(text.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Program;
    use crate::flags::testing::{config, refused};

    fn engine(args: &[&str]) -> EngineConfig {
        match config(args).program {
            Program::BuiltIn(engine) => engine,
            Program::Command(words) => panic!("a command: {words:?}"),
        }
    }

    #[test]
    fn without_flags_it_is_the_engine_of_socket_io() {
        assert_eq!(engine(&[]), EngineConfig::default());
    }

    #[test]
    fn path_has_a_slash_at_both_ends() {
        for text in ["/a/b/", "a/b", "/a/b", "a/b/"] {
            assert_eq!(engine(&["--path", text]).path, "/a/b/");
        }
        assert!(refused(&["--path", "/"]).contains("`/` is where the page is"));
        for text in ["", "//", "/a//b", "/a?b", "/a b/", "/a/../b", "/{x}/", "/ä/"] {
            assert!(refused(&["--path", text]).contains("write a path such as /socket.io/"), "{text}");
        }
    }

    #[test]
    fn the_client_bundle_can_be_kept_back() {
        assert!(engine(&[]).serve_client);
        assert!(!engine(&["--no-serve-client"]).serve_client);
        assert!(engine(&["--no-serve-client=false"]).serve_client);
    }

    #[test]
    fn transports_are_a_list_of_at_least_one() {
        use Transport::{Polling, Websocket};
        assert_eq!(engine(&["--transports", "websocket"]).transports, [Websocket]);
        assert_eq!(engine(&["--transports", "websocket,polling,polling"]).transports, [Polling, Websocket]);
        for text in ["", "polling,", "webtransport"] {
            assert!(refused(&["--transports", text]).contains("write polling or websocket"), "{text}");
        }
    }

    #[test]
    fn heartbeats_are_in_milliseconds() {
        assert_eq!(engine(&["--ping-interval", "300"]).ping_interval, Duration::from_millis(300));
        assert_eq!(engine(&["--ping-timeout", "2s"]).ping_timeout, Duration::from_secs(2));
        assert_eq!(engine(&["--upgrade-timeout", "1500"]).upgrade_timeout, Duration::from_millis(1500));
        for flag in ["--ping-interval", "--ping-timeout", "--upgrade-timeout"] {
            assert!(refused(&[flag, "0"]).contains("it must be more than 0"));
        }
    }

    #[test]
    fn the_largest_message_is_bounded() {
        assert_eq!(engine(&["--max-payload", "1073741824"]).max_payload, 1 << 30);
        for text in ["0", "1073741825"] {
            assert!(refused(&["--max-payload", text]).contains("write a number from 1 to 1073741824"), "{text}");
        }
    }

    #[test]
    fn an_origin_is_a_site_and_nothing_more() {
        let origins =
            engine(&["--cors-origin", "https://Example.org", "--cors-origin", "http://[::1]:8080"]).cors_origin;
        assert_eq!(origins, ["https://example.org", "http://[::1]:8080"]);
        assert_eq!(engine(&["--cors-origin", "*"]).cors_origin, ["*"]);
        for text in ["example.org", "https://example.org/", "https://example.org/x", "https://a@b", "", "https://"] {
            assert!(refused(&["--cors-origin", text]).contains("https://example.org (no path"), "{text}");
        }
        let message = refused(&["--cors-origin", "*", "--cors-origin", "https://a"]);
        assert!(message.contains("--cors-origin: * is every site already"), "{message}");
    }

    #[test]
    fn a_folder_must_be_there() {
        let temp = tempfile::tempdir().expect("folder");
        let path = |name: &str| temp.path().join(name).to_str().expect("UTF-8").to_owned();
        let (dir, file, missing) = (path(""), path("file"), path("missing"));
        std::fs::write(&file, "").expect("file");
        assert_eq!(engine(&["--static", &dir]).static_dir, Some(PathBuf::from(&dir)));
        for flag in ["--static", "--client-dist"] {
            let message = refused(&[flag, &missing]);
            assert!(message.contains(&format!("{flag} {missing}: No such file or directory")), "{message}");
            assert!(refused(&[flag, &file]).contains("it is not a folder"));
            assert!(refused(&[flag, ""]).contains("the name of the folder is missing"));
        }
        assert!(refused(&["--client-dist", &dir]).contains("it holds no socket.io.js"));
        std::fs::write(path("socket.io.js"), "").expect("file");
        assert_eq!(engine(&["--client-dist", &dir]).client_dist, Some(PathBuf::from(&dir)));
    }
}

//! How haft is watched: the admin listener and the log.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use crate::addr::{ListenAddr, ListenAddrError};
use crate::admin::TokenFile;
use crate::config::{Log, LogFormat};
use crate::flags::error::FlagsError;
use crate::flags::file_name;
use crate::flags::said::Said;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Admin")]
pub(super) struct Admin {
    /// Where to serve /metrics, /status, /healthz and /readyz, and to take /reload, /scale, /drain and /undrain
    /// [default: off]
    ///
    /// Written like --listen, but a port alone is one of the loopback: `9090` is `127.0.0.1:9090`. For every interface
    /// write `0.0.0.0:9090`, `[::]:9090` or `*:9090`. `unix:/path` may be opened by its owner only. Everybody who can
    /// connect may read. What changes something is a POST (`/scale?workers=4`,
    /// `/drain?slot=0`), from root or haft's own user on a Unix socket, or with the token on TCP: curl -X POST
    /// --unix-socket /path http://localhost/reload
    #[arg(long, value_name = "ADDR", value_parser = admin_addr)]
    pub(super) admin: Option<ListenAddr>,

    /// The file with the token that opens control on a TCP admin listener [default: control is off on TCP]
    ///
    /// One line; only its owner may read it (mode 600). A change is asked for with `Authorization: Bearer <token>`. The
    /// file is read for each such request, so the token can be changed at any time.
    #[arg(long, value_name = "PATH", value_parser = file_name)]
    admin_token_file: Option<PathBuf>,
}

/// As [`ListenAddr`], but without a host it is the loopback.
fn admin_addr(text: &str) -> Result<ListenAddr, ListenAddrError> {
    Ok(match text.parse()? {
        ListenAddr::DualStack(port) if !text.starts_with('*') => ListenAddr::Ip((Ipv4Addr::LOCALHOST, port).into()),
        addr => addr,
    })
}

impl Admin {
    /// The token file, found to be one that serves.
    pub(super) fn token_file(&self, said: &Said) -> Result<Option<PathBuf>, FlagsError> {
        let Some(path) = &self.admin_token_file else { return Ok(None) };
        let name = said.name("admin-token-file");
        if matches!(self.admin, None | Some(ListenAddr::Unix(_))) {
            return Err(FlagsError::TokenForNothing { name });
        }
        match TokenFile::new(path).check() {
            Ok(()) => Ok(Some(path.clone())),
            Err(fault) => Err(FlagsError::Token { name, path: path.clone(), fault }),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct Logging {
    /// How haft writes its log: lines for people (text) or one JSON object a line (json)
    #[arg(long, value_name = "text|json", default_value = "text")]
    log_format: LogFormat,

    /// The least that is logged: off, error, warn, info, debug or trace
    ///
    /// Modules may differ: `info,haft::master=debug`.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    log_level: String,

    /// The file that haft appends its log to, and what workers write to their standard error [default: standard error]
    ///
    /// After it was renamed, SIGUSR1 has it opened anew (logrotate). It is made with mode 640 if it is not there. Why haft
    /// does not start is told on standard error, too.
    #[arg(long, value_name = "PATH", value_parser = file_name)]
    log_file: Option<PathBuf>,
}

impl Logging {
    pub(super) fn resolve(self) -> Log {
        Log { format: self.log_format, level: self.log_level, file: self.log_file }
    }
}

/// Why a text is no log level.
#[derive(Debug, thiserror::Error)]
enum LevelError {
    #[error("`{0}` is none of off, error, warn, info, debug and trace (a module is written module=level)")]
    Unknown(String),
    #[error("{0}")]
    Directive(#[from] ParseError),
}

/// A directive of `EnvFilter`, except that a bare word must be a level: `EnvFilter` would take `inof` for a module.
fn level(text: &str) -> Result<String, LevelError> {
    // An empty part would be read as `error`.
    let unknown = |part: &&str| !part.contains('=') && (part.is_empty() || part.parse::<LevelFilter>().is_err());
    match text.split(',').find(unknown) {
        Some(part) => Err(LevelError::Unknown(part.to_owned())),
        None => Ok(EnvFilter::try_new(text).map(|_| text.to_owned())?),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::LogFormat;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use crate::flags::testing::{Folder, config, refused};

    #[test]
    fn admin_is_off_unless_it_has_an_address() {
        assert_eq!(config(&[]).admin, None);
        let admin = |text| config(&["--admin", text]).admin.map(|addr| addr.to_string());
        assert_eq!(admin("127.0.0.1:9090"), Some("127.0.0.1:9090".to_owned()));
        for port in ["9090", ":9090", "localhost:9090"] {
            assert_eq!(admin(port), Some("127.0.0.1:9090".to_owned()), "{port}");
        }
        for every in ["0.0.0.0:9090", "[::]:9090"] {
            assert_eq!(admin(every), Some(every.to_owned()));
        }
        assert_eq!(config(&["--admin", "*:9090"]).admin, Some(crate::addr::ListenAddr::DualStack(9090)));
        assert_eq!(admin("unix:/run/haft.sock"), Some("unix:/run/haft.sock".to_owned()));
        assert!(refused(&["--admin", "off"]).contains("the port is not a number"));
    }

    #[test]
    fn a_token_is_for_tcp_and_for_nobody_else_to_read() {
        let folder = Folder::new();
        let token = format!("{}/token", folder.path());
        assert_eq!(config(&[]).admin_token_file, None);
        let file = format!("--admin-token-file={token}");
        for admin in ["--admin=127.0.0.1:9090", "--admin=9090", "--admin=[::1]:9090"] {
            assert_eq!(config(&[admin, &file]).admin_token_file, Some(PathBuf::from(&token)));
        }
        for args in [vec![file.as_str()], vec!["--admin=unix:/run/y", &file]] {
            let message = refused(&args);
            assert!(message.contains("--admin-token-file: it is for an admin listener on TCP"), "{message}");
        }
        let yaml = folder.yaml(&format!("admin: 9090\nadmin-token-file: {token}\n"));
        fs::set_permissions(&token, Permissions::from_mode(0o640)).expect("mode");
        let message = refused(&["-c", &yaml]);
        assert!(
            message.contains(&format!("haft.yaml:2: admin-token-file {token}: others than its owner")),
            "{message}"
        );
        fs::write(&token, "\n").expect("file");
        fs::set_permissions(&token, Permissions::from_mode(0o600)).expect("mode");
        assert!(refused(&["--admin=9090", &file]).contains("it is empty: put a token into it"));
        fs::remove_file(&token).expect("file");
        assert!(refused(&["--admin=9090", &file]).contains("No such file or directory"));
        assert!(refused(&["--admin=9090", "--admin-token-file="]).contains("the name of the file is missing"));
    }

    #[test]
    fn the_log_is_text_at_info() {
        assert_eq!(config(&[]).log.format, LogFormat::Text);
        assert_eq!(config(&["--log-format", "json"]).log.format, LogFormat::Json);
        assert!(refused(&["--log-format", "xml"]).contains("write text or json"));
        assert_eq!(config(&[]).log.level, "info");
    }

    #[test]
    fn a_level_may_differ_by_module_but_must_exist() {
        for level in ["off", "warn", "TRACE", "haft=debug", "info,haft::master=trace"] {
            assert_eq!(config(&["--log-level", level]).log.level, level);
        }
        for level in ["inof", "", "haft", "info,", "haft=loud", "info,quiet"] {
            let message = refused(&["--log-level", level]);
            assert!(message.contains("--log-level"), "{message}");
        }
        assert!(refused(&["--log-level", "inof"]).contains("`inof` is none of off, error, warn"));
    }
}

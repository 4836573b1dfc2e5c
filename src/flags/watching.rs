//! How haft is watched: the admin listener and the log.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use crate::addr::ListenAddr;
use crate::config::LogFormat;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Admin")]
pub(super) struct Admin {
    /// Where to serve /metrics, /status, /healthz and /readyz [default: off]
    ///
    /// Written like --listen: `9090` is every interface, so prefer `127.0.0.1:9090` or `unix:/path`, which only its
    /// owner may open.
    #[arg(long, value_name = "ADDR")]
    pub(super) admin: Option<ListenAddr>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct Logging {
    /// How haft writes its log: lines for people (text) or one JSON object a line (json)
    #[arg(long, value_name = "text|json", default_value = "text")]
    pub(super) log_format: LogFormat,

    /// The least that is logged: off, error, warn, info, debug or trace
    ///
    /// Modules may differ: `info,haft::master=debug`.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    pub(super) log_level: String,
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
    use crate::flags::testing::{config, refused};

    #[test]
    fn admin_is_off_unless_it_has_an_address() {
        assert_eq!(config(&[]).admin, None);
        let admin = |text| config(&["--admin", text]).admin.map(|addr| addr.to_string());
        assert_eq!(admin("127.0.0.1:9090"), Some("127.0.0.1:9090".to_owned()));
        assert_eq!(admin("unix:/run/haft.sock"), Some("unix:/run/haft.sock".to_owned()));
        assert!(refused(&["--admin", "off"]).contains("the port is not a number"));
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

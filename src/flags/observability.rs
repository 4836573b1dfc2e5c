//! How haft is watched: the admin listener and the log.

use std::path::PathBuf;

use tracing_subscriber::filter::LevelFilter;

use crate::admin::TokenFile;
use crate::config::{Admin, InstanceName, Log, LogFormat};
use crate::flags::error::FlagsError;
use crate::flags::file_name;
use crate::flags::provenance::Provenance;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Admin")]
pub(super) struct AdminFlags {
    /// Where to serve metrics and status and take control: an address, or off
    /// [default: a Unix socket that `haft status` and the like find]
    ///
    /// The default is `$RUNTIME_DIRECTORY/haft.sock`, else `NAME.sock` in `$XDG_RUNTIME_DIR/haft`, in `/run/haft` or in
    /// `/tmp/haft-UID`, the first of these folders that haft may write to. `unix:/path` is another place for it. A TCP
    /// address is served beside it: a port alone, `9090`, is on the loopback; for every interface write `0.0.0.0:9090`,
    /// `[::]:9090` or `*:9090`. With `off` there is no listener at all. A Unix socket may be opened by its owner only. Every
    /// client that can connect may read. Changes are POST requests (`/scale?workers=4`, `/drain?slot=0`): on a Unix
    /// socket from root or haft's own user, on TCP with the token.
    #[arg(long, value_name = "ADDR|off")]
    pub(super) admin: Option<Admin>,

    /// The name of this haft for `haft status` and the like [default: the program and the port]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<InstanceName>,

    /// The file with the token that opens control on a TCP admin listener [default: control is off on TCP]
    ///
    /// One line; only its owner may read it (mode 600). Requests send `Authorization: Bearer <token>`. haft reads the
    /// file for each of them, so the token can be changed at any time.
    #[arg(long, value_name = "PATH", value_parser = file_name)]
    admin_token_file: Option<PathBuf>,
}

impl AdminFlags {
    /// The token file, found to be one that serves.
    pub(super) fn token_file(&self, provenance: &Provenance) -> Result<Option<PathBuf>, FlagsError> {
        let Some(path) = &self.admin_token_file else { return Ok(None) };
        let name = provenance.name("admin-token-file");
        if self.admin.as_ref().and_then(Admin::tcp).is_none() {
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
    /// The format of haft's log: text, or json with one object a line
    #[arg(long, value_name = "text|json", default_value = "text")]
    log_format: LogFormat,

    /// The lowest level that is logged: off, error, warn, info, debug or trace
    ///
    /// Modules may differ: `info,haft::master=debug`.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    log_level: String,

    /// The file that haft appends its log to, and what workers write to their standard error [default: standard error]
    ///
    /// After it was renamed, SIGUSR1 has it opened anew (logrotate). It is made with mode 640 if it is not there. Why
    /// haft does not start is written to standard error, too.
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
    #[error("`{0}` is no module (write it as `haft::master=debug`)")]
    Module(String),
}

/// What `tracing_subscriber`'s `Targets` reads, except that each part must name a level: `Targets` would take `inof` for
/// a module.
fn level(text: &str) -> Result<String, LevelError> {
    for part in text.split(',') {
        let (module, level) = part.split_once('=').map_or((None, part), |(module, level)| (Some(module), level));
        // An empty level would be read as `error`.
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(LevelError::Unknown(level.to_owned()));
        }
        let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
        if let Some(module) = module.filter(|module| module.is_empty() || !module.chars().all(belongs)) {
            return Err(LevelError::Module(module.to_owned()));
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::config::{Admin, LogFormat};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use crate::flags::testing::{Folder, config, refused};

    #[test]
    fn admin_is_at_a_default_place_unless_it_is_off_or_has_an_address() {
        assert_eq!(config(&[]).admin, Admin::Default);
        assert_eq!(config(&["--admin", "off"]).admin, Admin::Off);
        let admin = |text| config(&["--admin", text]).admin.to_string();
        for port in ["9090", ":9090", "localhost:9090", "127.0.0.1:9090"] {
            assert_eq!(admin(port), "127.0.0.1:9090", "{port}");
        }
        for every in ["0.0.0.0:9090", "[::]:9090", "*:9090"] {
            assert_eq!(admin(every), every);
        }
        assert_eq!(admin("unix:/run/haft.sock"), "unix:/run/haft.sock");
        assert!(refused(&["--admin", "on"]).contains("the port is not a number"));
        for (admin, has_socket) in [("off", false), ("unix:/x", false), ("9090", true)] {
            assert_eq!(config(&["--admin", admin]).admin.has_default_socket(), has_socket, "{admin}");
        }
    }

    #[test]
    fn a_haft_may_have_a_name() {
        assert_eq!(config(&[]).name, None);
        assert_eq!(config(&["--name", "api"]).name.expect("a name").as_str(), "api");
        assert!(refused(&["--name", "../api"]).contains("write up to 64 letters"));
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
        for level in ["off", "warn", "TRACE", "haft=debug", "info,haft::master=trace", "debug,hyper=off"] {
            assert_eq!(config(&["--log-level", level]).log.level, level);
        }
        for level in
            ["inof", "", "haft", "info,", "haft=loud", "info,quiet", "haft=", "=info", "haft=info=x", "haft[span]=info"]
        {
            let message = refused(&["--log-level", level]);
            assert!(message.contains("--log-level"), "{message}");
        }
        assert!(refused(&["--log-level", "inof"]).contains("`inof` is none of off, error, warn"));
        assert!(refused(&["--log-level", "haft[span]=info"]).contains("`haft[span]` is no module"));
    }
}

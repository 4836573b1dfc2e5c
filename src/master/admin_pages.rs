//! Opening the admin listeners: the control socket that commands find by themselves, and what `--admin` names.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::MasterError;
use super::error::Context;
use crate::addr::ListenAddr;
use crate::admin::socket::{SocketPlace, Surroundings, file_names};
use crate::admin::{self, AdminListener, TokenFile};
use crate::config::{Config, InstanceName};
use crate::sys::listen::{Access, ListenError, Listener, SocketFile, remove_stale_in};
use crate::sys::trust;

/// Connections that may wait at an admin listener.
const BACKLOG: u32 = 128;

/// The files of the admin listeners' Unix sockets, which are removed when this is dropped.
#[derive(Debug, Default)]
pub(super) struct AdminFiles {
    /// That of the default control socket, and its folder, if it is called after the haft.
    called: Option<(PathBuf, SocketFile)>,
    /// The others.
    _fixed: Vec<SocketFile>,
}

impl AdminFiles {
    /// The haft is called so from now on.
    pub(super) fn rename(&mut self, name: &InstanceName) {
        let Some((folder, file)) = &mut self.called else { return };
        for file_name in file_names(name.as_str()) {
            match file.rename(file_name.as_ref()) {
                Ok(()) => return log_control_socket(&folder.join(file_name)),
                // Another haft has this name.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return tracing::debug!(%error, "the control socket keeps its name, and is not called {name}");
                }
            }
        }
    }
}

fn log_control_socket(path: &Path) {
    tracing::info!("control socket {} (see `haft status`)", ListenAddr::Unix(path.to_owned()));
}

/// Serves metrics, status and control beside the master, wherever the configuration says. Yields the files of sockets.
pub(super) fn serve(config: &Config, name: &InstanceName, control: &admin::Control) -> Result<AdminFiles, MasterError> {
    let (mut called, mut fixed) = (None, Vec::new());
    if config.admin.has_default_socket()
        && let Some((place, path, listener)) = default_socket(name)
    {
        log_control_socket(&path);
        let file = serve_at(listener, control.clone(), None)?;
        match place.fixed {
            true => fixed.extend(file),
            false => called = file.map(|file| (place.folder, file)),
        }
    }
    if let Some(addr) = config.admin.addr() {
        let listener = Listener::bind(addr, BACKLOG, Access::OwnerOnly).map_err(MasterError::Admin)?;
        tracing::info!("metrics and status on {}", listener.addr().url());
        let token_file = config.admin_token_file.clone().map(TokenFile::new);
        fixed.extend(serve_at(listener, control.clone(), token_file)?);
    }
    Ok(AdminFiles { called, _fixed: fixed })
}

fn serve_at(
    listener: Listener,
    control: admin::Control,
    token_file: Option<TokenFile>,
) -> Result<Option<SocketFile>, MasterError> {
    let is_unix = matches!(listener.addr(), ListenAddr::Unix(_));
    let (socket, file) = listener.into_parts();
    let listener =
        if is_unix { AdminListener::from_unix(socket.into()) } else { AdminListener::from_tcp(socket.into()) };
    tokio::task::spawn_local(admin::serve(listener.context("preparing the admin listener")?, control, token_file));
    Ok(file)
}

/// The default control socket. haft serves its clients without one, too.
fn default_socket(name: &InstanceName) -> Option<(SocketPlace, PathBuf, Listener)> {
    let mut why = None;
    for place in Surroundings::own().places() {
        match bind_in(&place, name) {
            Ok((path, listener)) => return Some((place, path, listener)),
            Err(error) => {
                tracing::debug!(%error, "no control socket in {}", place.folder.display());
                why = Some(error);
            }
        }
    }
    let why = why.map_or_else(String::new, |error| format!(" ({error})"));
    tracing::warn!(
        "there is no folder for a control socket{why}: `haft status` and the like need one; set XDG_RUNTIME_DIR to a folder \
         of this user's, name a place with --admin unix:PATH, or say --admin off"
    );
    None
}

fn bind_in(place: &SocketPlace, name: &InstanceName) -> io::Result<(PathBuf, Listener)> {
    if let Some(mode) = place.make {
        match DirBuilder::new().mode(mode).create(&place.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let folder = trust::check_way(&place.folder)?;
    if place.make.is_some() {
        match remove_stale_in(&folder) {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "control sockets of masters that were killed"),
            Err(error) => tracing::debug!(%error, "stale control sockets are not looked for"),
        }
    }
    let mut last = io::ErrorKind::AlreadyExists.into();
    for path in place.sockets(name) {
        match Listener::bind(&ListenAddr::Unix(path.clone()), BACKLOG, Access::OwnerOnly) {
            Ok(listener) => return Ok((path, listener)),
            // Another haft has this name.
            Err(error @ (ListenError::PathLive(_) | ListenError::PathOccupied(_))) => last = io::Error::other(error),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn place(folder: &Path) -> SocketPlace {
        SocketPlace { folder: folder.join("haft"), make: Some(0o700), fixed: false }
    }

    /// The socket of a haft with this name, with its path.
    fn bind(place: &SocketPlace, name: &str) -> (String, Listener) {
        let (path, listener) = bind_in(place, &InstanceName::of(name)).expect("a socket");
        (path.display().to_string(), listener)
    }

    #[test]
    fn each_of_several_masters_of_one_name_has_a_socket_of_its_own() {
        let folder = tempfile::tempdir().expect("folder");
        let place = place(folder.path());
        let (first_path, first) = bind(&place, "api");
        let (second_path, _second) = bind(&place, "api");
        assert!(first_path.ends_with("/haft/api.sock") && second_path.ends_with("/haft/api-2.sock"));
        for socket in ["api.sock", "api-2.sock"] {
            assert_eq!(fs::metadata(place.folder.join(socket)).expect("there").mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&place.folder).expect("there").mode() & 0o777, 0o700);
        drop(first);
        assert!(bind(&place, "api").0.ends_with("/api.sock"), "free again");
    }

    #[test]
    fn a_socket_gets_the_name_that_becomes_known_and_leaves_others_theirs() {
        let folder = tempfile::tempdir().expect("folder");
        let place = place(folder.path());
        let files = || {
            let (_, listener) = bind(&place, "server");
            let (socket, file) = listener.into_parts();
            (socket, AdminFiles { called: file.map(|file| (place.folder.clone(), file)), _fixed: Vec::new() })
        };
        let at = |name: &str| UnixStream::connect(place.folder.join(name)).map(drop).map_err(|error| error.kind());
        let (_first_socket, mut first) = files();
        first.rename(&InstanceName::of("server-80"));
        assert_eq!((at("server-80.sock"), at("server.sock")), (Ok(()), Err(io::ErrorKind::NotFound)));
        let (_second_socket, mut second) = files();
        assert_eq!(at("server.sock"), Ok(()), "the name is free again");
        second.rename(&InstanceName::of("server-80"));
        assert_eq!((at("server-80.sock"), at("server-80-2.sock")), (Ok(()), Ok(())));
        drop(first);
        assert_eq!((at("server-80.sock"), at("server-80-2.sock")), (Err(io::ErrorKind::NotFound), Ok(())));
    }

    #[test]
    fn what_killed_masters_have_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let place = place(folder.path());
        // Other tests set the umask to 0 for a moment.
        DirBuilder::new().mode(0o700).create(&place.folder).expect("folder");
        let at = |name: &str| place.folder.join(name);
        drop(UnixListener::bind(at("gone-1.sock")).expect("stale"));
        drop(UnixListener::bind(at("api.sock")).expect("stale"));
        let _live = UnixListener::bind(at("live.sock")).expect("live");
        fs::write(at("file.sock"), "precious").expect("file");
        let (_, listener) = bind(&place, "api");
        assert!(!at("gone-1.sock").exists() && at("file.sock").exists());
        UnixStream::connect(at("live.sock")).expect("left alone");
        UnixStream::connect(at("api.sock")).expect("replaced");
        drop(listener);
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_not_used() {
        let folder = tempfile::tempdir().expect("folder");
        let place = place(folder.path());
        // Other tests set the umask to 0 for a moment.
        DirBuilder::new().mode(0o700).create(&place.folder).expect("folder");
        fs::set_permissions(&place.folder, Permissions::from_mode(0o777)).expect("mode");
        let error = bind_in(&place, &InstanceName::of("api")).expect_err("not to be trusted");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    }
}

//! Opening the admin listeners: the control socket that commands find by themselves, and what `--admin` names.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;

use super::MasterError;
use super::error::Context;
use crate::addr::ListenAddr;
use crate::admin::socket::{SocketPlace, Surroundings};
use crate::admin::{self, AdminListener, TokenFile};
use crate::config::{Config, InstanceName};
use crate::sys::listen::{Access, ListenError, Listener, SocketFile, remove_stale_in};
use crate::sys::trust;

/// Connections that may wait at an admin listener.
const BACKLOG: u32 = 128;

/// Serves metrics, status and control beside the master, wherever the configuration says. Yields the files of sockets,
/// which are removed when they are dropped.
pub(super) fn serve(
    config: &Config,
    name: &InstanceName,
    control: &admin::Control,
) -> Result<Vec<SocketFile>, MasterError> {
    let mut files = Vec::new();
    if config.admin.has_default_socket()
        && let Some(listener) = default_socket(name)
    {
        tracing::info!("control socket {listener} (see `haft status`)", listener = listener.addr());
        files.extend(serve_at(listener, control.clone(), None)?);
    }
    if let Some(addr) = config.admin.addr() {
        let listener = Listener::bind(addr, BACKLOG, Access::OwnerOnly).map_err(MasterError::Admin)?;
        tracing::info!("metrics and status on {}", listener.addr().url());
        let token_file = config.admin_token_file.clone().map(TokenFile::new);
        files.extend(serve_at(listener, control.clone(), token_file)?);
    }
    Ok(files)
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
fn default_socket(name: &InstanceName) -> Option<Listener> {
    let mut why = None;
    for place in Surroundings::own().places() {
        match bind_in(&place, name) {
            Ok(listener) => return Some(listener),
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

fn bind_in(place: &SocketPlace, name: &InstanceName) -> io::Result<Listener> {
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
        match Listener::bind(&ListenAddr::Unix(path), BACKLOG, Access::OwnerOnly) {
            Ok(listener) => return Ok(listener),
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
    use std::path::Path;

    use super::*;

    fn place(folder: &Path) -> SocketPlace {
        SocketPlace { folder: folder.join("haft"), make: Some(0o700), fixed: false }
    }

    fn path(listener: &Listener) -> String {
        listener.addr().to_string()
    }

    #[test]
    fn each_of_several_masters_of_one_name_has_a_socket_of_its_own() {
        let folder = tempfile::tempdir().expect("folder");
        let (place, name) = (place(folder.path()), InstanceName::of("api"));
        let first = bind_in(&place, &name).expect("a socket");
        let second = bind_in(&place, &name).expect("another socket");
        assert!(path(&first).ends_with("/haft/api.sock") && path(&second).ends_with("/haft/api-2.sock"));
        for socket in ["api.sock", "api-2.sock"] {
            assert_eq!(fs::metadata(place.folder.join(socket)).expect("there").mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&place.folder).expect("there").mode() & 0o777, 0o700);
        drop(first);
        assert!(path(&bind_in(&place, &name).expect("free again")).ends_with("/api.sock"));
    }

    #[test]
    fn what_killed_masters_have_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let place = place(folder.path());
        fs::create_dir(&place.folder).expect("folder");
        let at = |name: &str| place.folder.join(name);
        drop(UnixListener::bind(at("gone-1.sock")).expect("stale"));
        drop(UnixListener::bind(at("api.sock")).expect("stale"));
        let _live = UnixListener::bind(at("live.sock")).expect("live");
        fs::write(at("file.sock"), "precious").expect("file");
        let listener = bind_in(&place, &InstanceName::of("api")).expect("a socket");
        assert!(!at("gone-1.sock").exists() && at("file.sock").exists());
        UnixStream::connect(at("live.sock")).expect("left alone");
        UnixStream::connect(at("api.sock")).expect("replaced");
        drop(listener);
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_not_used() {
        let folder = tempfile::tempdir().expect("folder");
        let place = place(folder.path());
        fs::create_dir(&place.folder).expect("folder");
        fs::set_permissions(&place.folder, Permissions::from_mode(0o777)).expect("mode");
        let error = bind_in(&place, &InstanceName::of("api")).expect_err("not to be trusted");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    }
}

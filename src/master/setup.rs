//! What the master opens before it serves: listeners, the secret of tags, the admin pages.

use std::time::{Duration, Instant};

use super::MasterError;
use super::error::While;
use super::plan::Plan;
use crate::addr::{ListenAddr, PassedAddr};
use crate::admin::{self, AdminListener, TokenFile};
use crate::config::{Config, DispatchBy};
use crate::listen::kernel::{Kernel, KernelError};
use crate::route::TagKey;
use crate::sys::listen::{Access, ListenError, Listener, SocketFile};

/// Where a master was killed a moment ago, its guardian frees the ports of its workers within this time.
const GUARDIAN_PATIENCE: Duration = Duration::from_millis(1500);

/// Opens what `--listen` names: listeners of our own, or one for each slot. What was `passed` is open already.
pub(super) fn listen(
    config: &Config,
    plan: &Plan,
    mut passed: Vec<(PassedAddr, Listener)>,
) -> Result<(Vec<Listener>, Option<Kernel>), MasterError> {
    Ok(match config.dispatch {
        DispatchBy::Handover => {
            let bind = |addr: &ListenAddr| match passed.iter().position(|(passed, _)| passed.addr == *addr) {
                Some(at) => Ok(passed.swap_remove(at).1),
                None => Listener::bind(addr, config.backlog, Access::Umask),
            };
            (plan.listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?, None)
        }
        DispatchBy::Kernel => {
            let until = Instant::now() + GUARDIAN_PATIENCE;
            let kernel = loop {
                match Kernel::new(config, &plan.listen, plan.passes_listeners()) {
                    Err(KernelError::Listen(ListenError::PortInUse(_))) if Instant::now() < until => {
                        std::thread::sleep(GUARDIAN_PATIENCE / 100);
                    }
                    outcome => break outcome?,
                }
            };
            (Vec::new(), Some(kernel))
        }
    })
}

/// What sessions are tagged with: what was said, or chance.
pub(super) fn tag_key(config: &Config) -> Result<TagKey, MasterError> {
    if let Some(secret) = &config.sessions.tag_key {
        return Ok(secret.key.clone());
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other).doing("making a secret for tags")?;
    Ok(TagKey::new(bytes))
}

/// Serves metrics, status and control beside the master.
pub(super) fn serve_admin(
    addr: &ListenAddr,
    control: admin::Control,
    config: &Config,
) -> Result<Option<SocketFile>, MasterError> {
    let listener = Listener::bind(addr, 128, Access::OwnerOnly).map_err(MasterError::Admin)?;
    tracing::info!("metrics and status on {}", listener.addr().url());
    let is_unix = matches!(listener.addr(), ListenAddr::Unix(_));
    let (socket, file) = listener.into_parts();
    let listener =
        if is_unix { AdminListener::from_unix(socket.into()) } else { AdminListener::from_tcp(socket.into()) };
    let token_file = config.admin_token_file.clone().map(TokenFile::new);
    tokio::task::spawn_local(admin::serve(listener.doing("preparing the admin listener")?, control, token_file));
    Ok(file)
}

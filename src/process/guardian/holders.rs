//! Processes that still hold a listener.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;

/// Listeners, by the kernel's inode.
#[derive(Debug, Default)]
pub(super) struct Inodes(BTreeSet<u64>);

impl Inodes {
    /// Of these listeners.
    pub(super) fn of(listeners: &[impl AsFd]) -> Self {
        Self(listeners.iter().filter_map(|listener| Some(fstat(listener).ok()?.st_ino)).collect())
    }

    /// Whether another process than this one holds one of them, as far as can be seen. `counts`: a process that may not
    /// be looked at is taken for one that does.
    pub(super) fn are_held(&self, counts: impl Fn(i32) -> bool) -> bool {
        let own = std::process::id() as i32;
        // Without /proc there is nothing to see.
        let Ok(processes) = fs::read_dir("/proc") else { return true };
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| *pid != own).any(|pid| {
            self.is_held_by(pid).unwrap_or_else(|error| error.kind() == io::ErrorKind::PermissionDenied && counts(pid))
        })
    }

    fn is_held_by(&self, pid: i32) -> io::Result<bool> {
        for descriptor in fs::read_dir(format!("/proc/{pid}/fd"))? {
            // One that is closed meanwhile is not held.
            let Ok(target) = descriptor.and_then(|descriptor| fs::read_link(descriptor.path())) else { continue };
            let inode = |target: &str| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok();
            if target.to_str().and_then(inode).is_some_and(|inode| self.0.contains(&inode)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn another_process_that_holds_a_listener_is_found_until_it_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let inodes = Inodes::of(&[&listener]);
        let copy: OwnedFd = listener.try_clone().expect("a copy").into();
        let mut holder = Command::new("sleep").arg("1000").stdin(Stdio::from(copy)).spawn().expect("sleep");
        assert!(inodes.are_held(|_| false));
        holder.kill().expect("kill");
        holder.wait().expect("its end");
        // Whatever other tests start may have it for a moment, between fork and exec.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while inodes.are_held(|_| false) {
            assert!(std::time::Instant::now() < deadline, "no other process has it");
        }
    }
}

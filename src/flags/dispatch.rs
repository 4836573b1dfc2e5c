//! What assigns a connection to a worker.

use crate::config::{Config, DispatchBy};
use crate::flags::error::FlagsError;
use crate::flags::provenance::Provenance;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Routing")]
pub(super) struct DispatchFlags {
    /// What assigns connections to workers: haft (handover), or the kernel, by the client's address (kernel)
    ///
    /// With kernel each worker has its own listener, and the kernel steers its clients to it: haft does no work for a
    /// connection. It works with the built-in worker, Node programs and --dialect listen-fds, with --affinity ip, on TCP.
    /// Up to 32 workers, each client has the same worker as with handover.
    #[arg(long, value_name = "handover|kernel", default_value = "handover")]
    pub(super) dispatch: DispatchBy,
}

/// Refuses what cannot be had together with the way in which connections are assigned.
pub(super) fn check(config: &Config, provenance: &Provenance) -> Result<(), FlagsError> {
    let Some(contradiction) = config.contradiction() else { return Ok(()) };
    let dispatch = if provenance.is_given("dispatch") { provenance.name("dispatch") } else { "--dispatch".to_owned() };
    Err(FlagsError::NotByDispatch {
        name: provenance.name(contradiction.key),
        dispatch,
        is: config.dispatch,
        why: contradiction.why,
    })
}

#[cfg(test)]
mod tests {
    use crate::config::DispatchBy;
    use crate::flags::testing::{Folder, config, refused};

    #[test]
    fn haft_gives_connections_unless_the_kernel_is_to() {
        assert_eq!(config(&[]).dispatch, DispatchBy::Handover);
        assert_eq!(config(&["--dispatch", "kernel"]).dispatch, DispatchBy::Kernel);
        assert!(refused(&["--dispatch", "bpf"]).contains("write handover or kernel"));
    }

    #[test]
    fn what_the_kernel_cannot_do_is_refused_in_a_sentence() {
        for (flags, message) in [
            (
                vec!["--affinity=none"],
                "--affinity: --dispatch is kernel, and the kernel knows clients by their address",
            ),
            (
                vec!["--affinity=session"],
                "--affinity: --dispatch is kernel, and the kernel knows clients by their address",
            ),
            (vec!["--sticky-path=/x/"], "--sticky-path: --dispatch is kernel, and the kernel sees no request"),
            (
                vec!["--proxy-protocol", "--trusted-proxy=10.0.0.0/8"],
                "--proxy-protocol: --dispatch is kernel, and the kernel takes the proxy for the client",
            ),
            (
                vec!["--client-ip-header=x-real-ip", "--trusted-proxy=10.0.0.0/8"],
                "--client-ip-header: --dispatch is kernel, and the kernel takes the proxy for the client",
            ),
            (
                vec!["-l", "80", "-l", "unix:/x"],
                "--listen: --dispatch is kernel, and the kernel cannot choose a worker",
            ),
            (vec!["--node-style=classic", "--", "x"], "--node-style: --dispatch is kernel, and the kernel sends no"),
            (
                vec!["--busy-poll=1ms"],
                "--busy-poll: --dispatch is kernel, and haft has no part in a connection that it could be awake for",
            ),
            (
                vec!["--hang-kill", "--dialect=listen-fds", "--", "x"],
                "--hang-kill: --dispatch is kernel, and a program with the dialect listen-fds is never found to hang",
            ),
        ] {
            let provenance = refused(&[&["--dispatch=kernel"], &flags[..]].concat());
            assert!(
                provenance.contains(message) && provenance.contains(": leave out one or the other"),
                "{provenance}"
            );
        }
        let folder = Folder::new();
        let file = folder.yaml("affinity: none\ndispatch: kernel\n");
        let provenance = refused(&["-c", &file]);
        assert!(
            provenance.contains("haft.yaml:1: affinity: ") && provenance.contains("haft.yaml:2: dispatch is kernel"),
            "{provenance}"
        );
    }

    #[test]
    fn a_program_that_takes_listeners_over_needs_the_kernel() {
        let program = ["--dialect=listen-fds", "--", "x"];
        let message = refused(&program);
        assert!(
            message.contains("--dialect: --dispatch is handover, and a program that takes its listeners"),
            "{message}"
        );
        let both = config(&[&["--dispatch=kernel"], &program[..]].concat());
        // It does not say where clients connect.
        assert_eq!(both.listen.as_deref().map(<[_]>::len), Some(1));
        config(&["--dispatch=kernel", "--dialect=listen-fds", "--wait-ready", "--", "x"]);
        let message = refused(&["--dispatch=kernel", "--dialect=listen-fds", "--node-style=auto", "--", "x"]);
        assert!(message.contains("--node-style belongs to a Node program, but --dialect says listen-fds"), "{message}");
    }
}

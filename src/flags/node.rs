//! How haft speaks to the program that each worker runs, above all to one that was written for Node's `cluster`.

use crate::config::{CommandLine, DialectChoice, NodeOptions, NodeStyle, Serialization};
use crate::flags::SWITCH;

/// The heading of these flags in the help, which sets them apart.
pub(super) const HEADING: &str = "Programs (when a COMMAND is given)";

/// The one of them that concerns every COMMAND.
pub(super) const DIALECT: &str = "dialect";

/// The one of them that concerns programs that take their listeners over, too.
pub(super) const WAIT_READY: &str = "wait-ready";

#[derive(Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct NodeFlags {
    /// The protocol that COMMAND speaks: that of Node's cluster (node), haft's own (haft), none (listen-fds), or detect
    /// it (auto)
    ///
    /// auto is node when COMMAND runs Node, as `node server.js` and `npm start` do, and haft otherwise. listen-fds is
    /// for a program that inherits a listener as from systemd (LISTEN_FDS, descriptor 3); it needs --dispatch kernel.
    #[arg(long, value_name = "auto|haft|node|listen-fds", default_value = "auto")]
    pub(super) dialect: DialectChoice,

    /// How a Node program gets its connections: auto, cluster, classic, sticky-session, sticky-cluster, sticky-listen,
    /// socket.io-sticky, or JSON
    ///
    /// cluster: through the servers that it listens with, as under Node's own cluster. The others are for a program
    /// that expects a message with each socket: `"sticky-session:connection"` (classic), that of the npm package
    /// sticky-session, sticky-cluster, sticky-listen or @socket.io/sticky, or any other, written as JSON
    /// (`'"my:connection"'`). auto is cluster; if the program has no server, the log says what to try.
    #[arg(long, value_name = "STYLE|JSON", default_value = "auto")]
    node_style: NodeStyle,

    /// The encoding of messages to and from a Node program: json, or advanced, which keeps binary data
    ///
    /// This is `serialization` of Node's cluster.setupPrimary. Socket.IO's cluster adapter needs advanced to send
    /// binary data from worker to worker.
    #[arg(long, value_name = "json|advanced", default_value = "json")]
    node_serialization: Serialization,

    /// A Node worker is ready only after process.send("ready"), as with pm2; a listen-fds worker only after READY=1
    /// (sd_notify)
    #[arg(long, value_name = SWITCH, action = clap::ArgAction::Set)]
    wait_ready: bool,

    /// Pass each message that a Node program sends to its primary (process.send) to all other workers
    ///
    /// Primaries of chats and caches usually do that. Without this flag haft counts such messages and logs the first
    /// one. Messages of @socket.io/cluster-adapter are always passed on.
    #[arg(long, value_name = SWITCH, action = clap::ArgAction::Set)]
    relay_messages: bool,

    /// Do not load haft's preload into Node programs
    ///
    /// The preload is a small file that Node loads before the program (--require). It tags session ids, makes
    /// socket.remoteAddress the client's address behind a proxy, shares rooms, ends the sessions of a leaving worker
    /// one by one instead of all at once, and keeps a worker's connections for up to --drain-timeout when haft itself
    /// is killed.
    #[arg(long, value_name = SWITCH, action = clap::ArgAction::Set)]
    no_preload: bool,
}

impl NodeFlags {
    pub(super) fn resolve(self, argv: Vec<String>) -> CommandLine {
        CommandLine {
            argv,
            dialect: self.dialect,
            node: NodeOptions {
                style: self.node_style,
                serialization: self.node_serialization,
                wait_ready: self.wait_ready,
                relay_messages: self.relay_messages,
                preload: !self.no_preload,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Program;
    use crate::flags::testing::{Folder, config, refused};

    fn command(args: &[&str]) -> CommandLine {
        match config(&[args, &["--", "x"]].concat()).program {
            Program::Command(command) => command,
            Program::BuiltIn(_) => panic!("no command: {args:?}"),
        }
    }

    #[test]
    fn without_flags_it_is_as_under_nodes_own_cluster() {
        let expected = CommandLine {
            argv: vec!["x".to_owned()],
            dialect: DialectChoice::Auto,
            node: NodeOptions {
                style: NodeStyle::Auto,
                serialization: Serialization::Json,
                wait_ready: false,
                relay_messages: false,
                preload: true,
            },
        };
        assert_eq!(command(&[]), expected);
        assert_eq!(command(&[]).node, NodeOptions::default());
    }

    #[test]
    fn the_dialect_can_be_told() {
        assert_eq!(command(&["--dialect", "haft"]).dialect, DialectChoice::Haft);
        assert_eq!(command(&["--dialect", "node"]).dialect, DialectChoice::Node);
        assert!(refused(&["--dialect", "deno", "--", "x"]).contains("write auto, haft, node or listen-fds"));
    }

    #[test]
    fn a_style_is_a_name_or_a_message() {
        let style = |text: &str| command(&["--node-style", text]).node.style;
        assert_eq!(style("sticky-listen"), NodeStyle::StickyListen);
        assert_eq!(style("[ \"a\", 1 ]"), NodeStyle::Json("[\"a\",1]".to_owned()));
        let message = refused(&["--node-style", "sticky:balance", "--", "x"]);
        assert!(message.contains("--node-style <STYLE|JSON>': write auto, cluster, classic"), "{message}");
        assert!(message.contains("or a message as JSON"), "{message}");
    }

    #[test]
    fn a_message_in_the_file_stands_in_quotes() {
        let folder = Folder::new();
        let style = |value: &str| {
            let file = folder.yaml(&format!("node-style: {value}\n"));
            command(&["-c", &file]).node.style
        };
        assert_eq!(style("'\"sticky:balance\"'"), NodeStyle::Json("\"sticky:balance\"".to_owned()));
        assert_eq!(style("|\n  {\"a\":\n   \"b c\"}"), NodeStyle::Json("{\"a\":\"b c\"}".to_owned()));
        for (value, message) in [
            ("{\"a\": 1}", "haft.yaml:1: node-style: write one value, or a list"),
            ("[\"a\", 1]", "haft.yaml:1: node-style: it takes one value, not a list"),
        ] {
            let file = folder.yaml(&format!("node-style: {value}"));
            let provenance = refused(&["-c", &file, "--", "x"]);
            assert!(provenance.contains(message) && provenance.contains("(put JSON in single quotes)"), "{provenance}");
        }
    }

    #[test]
    fn serialization_is_as_node_calls_it() {
        let serialization = |text: &str| command(&["--node-serialization", text]).node.serialization;
        assert_eq!(serialization("json"), Serialization::Json);
        assert_eq!(serialization("advanced"), Serialization::Advanced);
        assert!(refused(&["--node-serialization", "v8", "--", "x"]).contains("write json or advanced"));
    }

    #[test]
    fn readiness_can_wait_for_a_message() {
        assert!(command(&["--wait-ready"]).node.wait_ready);
        assert!(!command(&["--wait-ready=false"]).node.wait_ready);
        assert!(refused(&["--wait-ready=yes", "--", "x"]).contains("possible values: true, false"));
    }

    #[test]
    fn they_belong_to_a_command() {
        let message = refused(&["--wait-ready", "--dialect=node"]);
        let expected = "--dialect, --wait-ready belong to a COMMAND, and there is none: name a program after `--`";
        assert!(message.contains(expected), "{message}");
        let folder = Folder::new();
        let message = refused(&["-c", &folder.yaml("workers: 2\nnode-style: cluster\ncommand: ~")]);
        let expected = "haft.yaml:2: node-style belongs to a COMMAND, and there is none: name a program after `--`";
        assert!(message.contains(expected), "{message}");
        config(&["-c", &folder.yaml("node-style: cluster\ncommand: x")]);
    }

    #[test]
    fn all_but_the_dialect_belong_to_a_node_program() {
        let all = ["--node-style=auto", "--node-serialization=json", "--wait-ready=false", "--dialect=haft"];
        let message = refused(&[&all[..], &["--", "x"]].concat());
        let expected = "--node-style, --node-serialization, --wait-ready belong to a Node program, but --dialect says \
            haft: leave out one or the other";
        assert!(message.contains(expected), "{message}");
        let folder = Folder::new();
        let file = folder.yaml("dialect: haft\nwait-ready: true\ncommand: x");
        let message = refused(&["-c", &file]);
        let expected = "haft.yaml:2: wait-ready belongs to a Node program, but haft.yaml:1: dialect says haft: ";
        assert!(message.replace(&format!("{}/", folder.path()), "").contains(expected), "{message}");
        // What is typed beats the file.
        assert_eq!(command(&["-c", &file, "--dialect=node"]).dialect, DialectChoice::Node);
    }
}

//! A program of the user's as the worker: its command line, and its settings as a Node program.

use std::fmt;
use std::str::FromStr;

use super::{UnknownWord, words};

/// Longest text of [`NodeStyle::Json`], in bytes. It goes with every connection, and must leave room in the 64 KiB that
/// Node reads at a time.
const MAX_MESSAGE: usize = 4096;

/// How messages are written: `--node-serialization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Serialization {
    /// A line of JSON. Buffers between workers do not survive it.
    #[default]
    Json,
    /// A length and a value in V8's own format.
    Advanced,
}

impl Serialization {
    /// Its name, also in Node's environment variable `NODE_CHANNEL_SERIALIZATION_MODE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Advanced => "advanced",
        }
    }
}

/// A command line that each worker runs.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandLine {
    /// The program, then its arguments. Never empty, nor is the program's name.
    pub argv: Vec<String>,
    /// What is spoken on its channel.
    pub dialect: DialectChoice,
    /// What holds if that is Node's; the defaults if it is haft's.
    pub node: NodeOptions,
}

/// The configured dialect of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DialectChoice {
    /// Node's if the program is Node, else haft's.
    #[default]
    Auto,
    /// haft's own hand-over protocol.
    Haft,
    /// The protocol of Node's cluster primary.
    Node,
    /// None: the program takes its listeners over as from systemd (sd_listen_fds(3)), and accepts by itself.
    ListenFds,
}

/// How haft stands in for the primary of Node's cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeOptions {
    /// How the program gets its connections.
    pub style: NodeStyle,
    /// How messages are written on the channel.
    pub serialization: Serialization,
    /// Whether a worker is ready only once it has sent `"ready"` with `process.send`; of a program that takes its
    /// listeners over, once it has sent `READY=1` (sd_notify(3)).
    pub wait_ready: bool,
    /// Whether messages to the primary go to all other workers.
    pub relay_messages: bool,
    /// Whether programs are given the preload, where it has something to do.
    pub preload: bool,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            style: NodeStyle::default(),
            serialization: Serialization::default(),
            wait_ready: false,
            relay_messages: false,
            preload: true,
        }
    }
}

impl DialectChoice {
    /// Whether the program may be Node's, which decides where to listen.
    pub fn may_be_node(self) -> bool {
        match self {
            Self::Auto | Self::Node => true,
            Self::Haft | Self::ListenFds => false,
        }
    }
}

words!(
    DialectChoice,
    "auto, haft, node or listen-fds",
    Auto = "auto",
    Haft = "haft",
    Node = "node",
    ListenFds = "listen-fds"
);
words!(Serialization, "json or advanced", Json = "json", Advanced = "advanced");

/// How a Node program gets its connections: from the servers that it has, or each with a message that it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodeStyle {
    /// As [`NodeStyle::Cluster`], until the program proves to have no server that could take them.
    #[default]
    Auto,
    /// At the servers that it listens with, as from Node's own primary.
    Cluster,
    /// With the message of the pattern that goes round for Socket.IO, of egg-cluster and of socketio-sticky-session.
    Classic,
    /// With the message of npm's sticky-session.
    StickySession,
    /// With the message of npm's sticky-cluster.
    StickyCluster,
    /// With the message of npm's sticky-listen.
    StickyListen,
    /// With the message of @socket.io/sticky.
    SocketIoSticky,
    /// With this message: compact JSON on one line, as [`NodeStyle::from_str`] makes it.
    Json(String),
}

impl NodeStyle {
    /// Those that have a name.
    const NAMED: [Self; 7] = [
        Self::Auto,
        Self::Cluster,
        Self::Classic,
        Self::StickySession,
        Self::StickyCluster,
        Self::StickyListen,
        Self::SocketIoSticky,
    ];

    fn as_str(&self) -> &str {
        match self {
            Self::Auto => "auto",
            Self::Cluster => "cluster",
            Self::Classic => "classic",
            Self::StickySession => "sticky-session",
            Self::StickyCluster => "sticky-cluster",
            Self::StickyListen => "sticky-listen",
            Self::SocketIoSticky => "socket.io-sticky",
            Self::Json(text) => text,
        }
    }

    /// The message that goes with each connection, as compact JSON on one line; none if connections go to servers.
    ///
    /// The texts are those that the packages' own primaries send (sticky-session 1.1.2, sticky-cluster 0.3.5,
    /// sticky-listen 3.3.0, @socket.io/sticky 1.x and 2.x: there `data` is what was read already, and haft reads
    /// nothing).
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Auto | Self::Cluster => None,
            Self::Classic => Some(r#""sticky-session:connection""#),
            Self::StickySession => Some(r#""sticky:balance""#),
            Self::StickyCluster => Some(r#""sticky-cluster:connection""#),
            Self::StickyListen => Some(r#"{"msg":"sticky:balance","payload":null}"#),
            Self::SocketIoSticky => Some(r#"{"type":"sticky:connection","data":""}"#),
            Self::Json(text) => Some(text),
        }
    }
}

/// Why a text is not a [`NodeStyle`].
#[derive(Debug, thiserror::Error)]
pub enum NodeStyleError {
    /// Neither a name nor anything like JSON.
    #[error(
        "write {}, or a message as JSON, where a text has quotes of its own ('\"my:connection\"')",
        NodeStyle::NAMED.each_ref().map(NodeStyle::as_str).join(", ")
    )]
    Unknown,
    /// It begins like JSON.
    #[error("it begins like a message in JSON, but is none: {0}")]
    NotJson(#[source] serde_json::Error),
    /// Node keeps objects whose `cmd` begins with `NODE_` to itself (`isInternal` in its lib/internal/child_process.js).
    #[error("the program would never see this message: Node takes a cmd that begins with NODE_ for its own")]
    Internal,
    /// Longer than what is sent with each connection should be.
    #[error("the message has {0} bytes: at most {MAX_MESSAGE}, since it goes with every connection")]
    TooLong(usize),
}

impl FromStr for NodeStyle {
    type Err = NodeStyleError;

    fn from_str(text: &str) -> Result<Self, NodeStyleError> {
        if let Some(named) = Self::NAMED.into_iter().find(|style| style.as_str() == text) {
            return Ok(named);
        }
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| {
            if text.trim_start().starts_with(['"', '{', '[']) {
                NodeStyleError::NotJson(error)
            } else {
                NodeStyleError::Unknown
            }
        })?;
        if value.get("cmd").and_then(|cmd| cmd.as_str()).is_some_and(|cmd| cmd.starts_with("NODE_")) {
            return Err(NodeStyleError::Internal);
        }
        let message = compact(text);
        if message.len() > MAX_MESSAGE {
            return Err(NodeStyleError::TooLong(message.len()));
        }
        Ok(Self::Json(message))
    }
}

impl fmt::Display for NodeStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// JSON without the white space between its tokens, which are kept as they are written: a value that is read and
/// written again would have its keys in another order and its large numbers rounded. No text in JSON holds a line
/// break (RFC 8259, section 7), so the result is one line.
fn compact(json: &str) -> String {
    let (mut in_text, mut escaped) = (false, false);
    let keep = |c: &char| {
        let keep = in_text || !matches!(c, ' ' | '\t' | '\n' | '\r');
        (in_text, escaped) = match c {
            '"' if !escaped => (!in_text, false),
            '\\' => (in_text, !escaped),
            _ => (in_text, false),
        };
        keep
    };
    json.chars().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn style(text: &str) -> NodeStyle {
        text.parse().expect(text)
    }

    fn refused(text: &str) -> String {
        text.parse::<NodeStyle>().expect_err(text).to_string()
    }

    #[test]
    fn each_word_is_read_as_it_is_written() {
        for dialect in [DialectChoice::Auto, DialectChoice::Haft, DialectChoice::Node, DialectChoice::ListenFds] {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        for serialization in [Serialization::Json, Serialization::Advanced] {
            assert_eq!(serialization.to_string().parse(), Ok(serialization));
        }
        for named in NodeStyle::NAMED {
            assert_eq!(style(&named.to_string()), named);
        }
        assert_eq!(
            "Node".parse::<DialectChoice>().expect_err("case").to_string(),
            "write auto, haft, node or listen-fds"
        );
    }

    #[test]
    fn a_package_is_sent_the_message_that_it_waits_for() {
        for (name, message) in [
            ("auto", None),
            ("cluster", None),
            ("classic", Some(r#""sticky-session:connection""#)),
            ("sticky-session", Some(r#""sticky:balance""#)),
            ("sticky-cluster", Some(r#""sticky-cluster:connection""#)),
            ("sticky-listen", Some(r#"{"msg":"sticky:balance","payload":null}"#)),
            ("socket.io-sticky", Some(r#"{"type":"sticky:connection","data":""}"#)),
            (r#""think-sticky-cluster""#, Some(r#""think-sticky-cluster""#)),
        ] {
            assert_eq!(style(name).message(), message, "{name}");
        }
        // What is sent is JSON, and compact.
        for message in NodeStyle::NAMED.iter().filter_map(NodeStyle::message) {
            assert_eq!(style(message), NodeStyle::Json(message.to_owned()));
        }
    }

    #[test]
    fn a_message_is_sent_as_it_is_but_on_one_line() {
        for (text, message) in [
            (r#""sticky:balance""#, r#""sticky:balance""#),
            (
                "{ \"z\" : [ 1.10,\t-0 ],\r\n \"a\" : 12345678901234567890123 }\n",
                r#"{"z":[1.10,-0],"a":12345678901234567890123}"#,
            ),
            (r#""a \" b \\" "#, r#""a \" b \\""#),
            (r#"[ "\\" , " " , "\u0041" ]"#, r#"["\\"," ","\u0041"]"#),
            (r#""auto""#, r#""auto""#),
            ("null", "null"),
            (" 7", "7"),
        ] {
            assert_eq!(style(text), NodeStyle::Json(message.to_owned()));
        }
    }

    #[test]
    fn a_word_that_is_neither_a_name_nor_json_is_refused_with_the_names() {
        for text in ["", " ", "Classic", "auto ", "sticky_session", "sticky:balance", "'x'", "1e999", "0x1"] {
            let message = refused(text);
            assert!(
                message.starts_with(
                    "write auto, cluster, classic, sticky-session, sticky-cluster, sticky-listen, socket.io-sticky, \
                     or a message as JSON"
                ),
                "{text}: {message}"
            );
        }
        for text in ["{", r#"{"a":1}}"#, r#""a"#, "[1,]", "\"a\nb\"", "{'a':1}", r#""\ud800""#] {
            let message = refused(text);
            assert!(message.starts_with("it begins like a message in JSON, but is none: "), "{text}: {message}");
        }
    }

    #[test]
    fn a_message_that_the_program_would_not_see_is_refused() {
        assert!(refused(r#"{"cmd":"NODE_CLUSTER","act":"disconnect"}"#).contains("Node takes a cmd"));
        assert!(refused(r#"{"cmd":"\u004eODE_X"}"#).contains("Node takes a cmd"));
        for text in [r#"{"cmd":"node_x"}"#, r#"{"cmd":["NODE_X"]}"#, r#"{"x":{"cmd":"NODE_X"}}"#, r#""NODE_X""#] {
            assert_eq!(style(text), NodeStyle::Json(text.to_owned()));
        }
    }

    #[test]
    fn a_message_is_short() {
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert_eq!(style(&format!("{}  \n", text(MAX_MESSAGE))), NodeStyle::Json(text(MAX_MESSAGE)));
        assert!(refused(&text(MAX_MESSAGE + 1)).contains("4097 bytes: at most 4096"));
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = "[ -~\\n\\t\"\\\\é]{0,6}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, move |inner| {
            prop_oneof![
                vec(inner.clone(), 0..3).prop_map(Value::from),
                btree_map(text, inner, 0..3).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_json_is_made_compact(value in values()) {
            let pretty = serde_json::to_string_pretty(&value).expect("JSON");
            prop_assert_eq!(style(&pretty), NodeStyle::Json(value.to_string()));
        }
    }
}

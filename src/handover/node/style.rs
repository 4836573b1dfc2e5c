//! How a program wants to be given its connections: `--node-style`.

use std::str::FromStr;

use serde_json::Value;

use super::Serialization;
use super::compose::{begin_frame, end_frame, write_value};

/// How a program wants to be given its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeStyle {
    /// As [`NodeStyle::Cluster`], unless the program turns out to have no server that can take connections.
    Auto,
    /// As Node's own primary gives them: to a server that the program listens with.
    Cluster,
    /// As the sticky packages give them: with a message to `process.on('message')`.
    Message(ConnectionMessage),
}

/// The message that comes with each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionMessage {
    /// JSON on one line.
    text: String,
}

/// Why a text is not a [`NodeStyle`].
#[derive(Debug, thiserror::Error)]
pub enum NodeStyleError {
    /// Neither a name nor JSON.
    #[error(
        "write {NAMES}, or the message that comes with each connection as JSON, such as '\"sticky:balance\"' ({0})"
    )]
    Unknown(serde_json::Error),
    /// A message that would never reach the program.
    #[error("a message whose \"cmd\" begins with NODE_ is Node's own: the program would never see it")]
    Internal,
}

/// The names, for messages to people.
const NAMES: &str = "auto, cluster, classic, sticky-session, sticky-cluster, sticky-listen or socket.io-sticky";

/// The styles that are a message, with what the packages send (read from their sources and tried with them).
const MESSAGES: [(&str, &str); 5] = [
    // The pattern of Socket.IO's old documentation; egg-cluster and socketio-sticky-session too.
    ("classic", r#""sticky-session:connection""#),
    ("sticky-session", r#""sticky:balance""#),
    ("sticky-cluster", r#""sticky-cluster:connection""#),
    ("sticky-listen", r#"{"msg":"sticky:balance","payload":null}"#),
    // `data` is what its primary has read already; haft reads nothing.
    ("socket.io-sticky", r#"{"type":"sticky:connection","data":""}"#),
];

impl FromStr for NodeStyle {
    type Err = NodeStyleError;

    fn from_str(text: &str) -> Result<Self, NodeStyleError> {
        match text {
            "auto" => return Ok(Self::Auto),
            "cluster" => return Ok(Self::Cluster),
            _ => {}
        }
        let named = MESSAGES.iter().find(|(name, _)| *name == text).map(|(_, message)| *message);
        ConnectionMessage::from_json(named.unwrap_or(text)).map(Self::Message)
    }
}

impl ConnectionMessage {
    /// A message as JSON; it is sent as it is.
    pub fn from_json(text: &str) -> Result<Self, NodeStyleError> {
        let value: Value = serde_json::from_str(text).map_err(NodeStyleError::Unknown)?;
        if value.get("cmd").and_then(Value::as_str).is_some_and(|cmd| cmd.starts_with("NODE_")) {
            return Err(NodeStyleError::Internal);
        }
        // A newline ends a message; in JSON it stands only where a blank may.
        Ok(Self { text: text.replace(['\n', '\r'], " ") })
    }

    /// The message as JSON on one line.
    pub fn json(&self) -> &str {
        &self.text
    }

    /// The frame that goes with each connection: the same for all.
    ///
    /// The type is net.Socket, so that the program gets a `net.Socket`; net.Native would give it a bare handle. There
    /// is no `key`, so Node keeps no list of these sockets.
    pub fn frame(&self, serialization: Serialization) -> Vec<u8> {
        let mut frame = Vec::new();
        begin_frame(serialization, &mut frame);
        match serialization {
            Serialization::Json => {
                frame.extend_from_slice(br#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"#);
                frame.extend_from_slice(self.text.as_bytes());
                frame.push(b'}');
            }
            Serialization::Advanced => {
                // It was parsed when this was made.
                let message = serde_json::from_str(&self.text).unwrap_or(Value::Null);
                let whole = serde_json::json!({ "cmd": "NODE_HANDLE", "type": "net.Socket", "msg": message });
                write_value(serialization, &whole, &mut frame);
            }
        }
        end_frame(serialization, 0, &mut frame);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_frame(style: &str) -> String {
        match style.parse() {
            Ok(NodeStyle::Message(message)) => String::from_utf8(message.frame(Serialization::Json)).expect("utf-8"),
            other => panic!("{style}: {other:?}"),
        }
    }

    #[test]
    fn each_style_is_the_message_its_package_waits_for() {
        for (style, message) in [
            ("classic", r#""sticky-session:connection""#),
            ("sticky-session", r#""sticky:balance""#),
            ("sticky-cluster", r#""sticky-cluster:connection""#),
            ("sticky-listen", r#"{"msg":"sticky:balance","payload":null}"#),
            ("socket.io-sticky", r#"{"type":"sticky:connection","data":""}"#),
            (r#""think-sticky-cluster""#, r#""think-sticky-cluster""#),
            ("[\"a\",\n 1]", r#"["a",  1]"#),
            ("7", "7"),
        ] {
            let expected = format!("{{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{message}}}\n");
            assert_eq!(json_frame(style), expected);
        }
        assert_eq!("auto".parse::<NodeStyle>().expect("auto"), NodeStyle::Auto);
        assert_eq!("cluster".parse::<NodeStyle>().expect("cluster"), NodeStyle::Cluster);
    }

    #[test]
    fn what_is_no_style_is_refused_with_the_names() {
        for text in ["sticky", "", "{", "\"a", "'a'"] {
            let error = text.parse::<NodeStyle>().expect_err(text).to_string();
            assert!(error.contains("sticky-listen") && error.contains("as JSON"), "{error}");
        }
        let error = r#"{"cmd":"NODE_CLUSTER"}"#.parse::<NodeStyle>().expect_err("internal").to_string();
        assert!(error.contains("NODE_"), "{error}");
    }
}

//! The message that comes with each connection, for programs that take their connections by message.

use serde_json::Value;

use super::Serialization;
use super::compose::{begin_frame, end_frame, write_value};

/// The message that comes with each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionMessage {
    /// JSON on one line.
    text: String,
}

impl ConnectionMessage {
    /// A message as JSON ([`crate::config::NodeStyle::message`]); it is sent as it is.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<serde::de::IgnoredAny>(text)?;
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
    use crate::config::NodeStyle;

    #[test]
    fn each_style_is_the_message_its_package_waits_for() {
        for (style, message) in [
            ("classic", r#""sticky-session:connection""#),
            ("sticky-session", r#""sticky:balance""#),
            ("sticky-cluster", r#""sticky-cluster:connection""#),
            ("sticky-listen", r#"{"msg":"sticky:balance","payload":null}"#),
            ("socket.io-sticky", r#"{"type":"sticky:connection","data":""}"#),
            (r#""think-sticky-cluster""#, r#""think-sticky-cluster""#),
            ("7", "7"),
        ] {
            let style: NodeStyle = style.parse().expect(style);
            let written = ConnectionMessage::from_json(style.message().expect("a message")).expect("JSON");
            let frame = String::from_utf8(written.frame(Serialization::Json)).expect("UTF-8");
            assert_eq!(frame, format!("{{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{message}}}\n"));
        }
    }

    #[test]
    fn what_is_no_json_is_refused_and_a_line_stays_a_line() {
        assert!(ConnectionMessage::from_json("sticky").is_err());
        assert_eq!(ConnectionMessage::from_json("[\"a\",\n 1]").expect("JSON").json(), "[\"a\",  1]");
    }
}

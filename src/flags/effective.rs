//! The effective configuration as YAML, in the keys that the file has.

use std::path::Path;
use std::time::Duration;

use crate::config::{Config, Engine, Program};
use crate::flags::file::{self, Node, YamlError};

impl Config {
    /// This configuration as YAML. Given back with `--config` it makes the same configuration.
    ///
    /// What is off (no admin listener, no folder) has no line.
    ///
    /// # Errors
    ///
    /// When the YAML library refuses, which it has no reason to for texts and numbers.
    pub fn to_yaml(&self) -> Result<String, YamlError> {
        let mut entries = vec![
            ("listen", many(&self.listen)),
            ("backlog", one(self.backlog)),
            ("workers", one(self.workers)),
            ("prefix-output", one(self.prefix_output)),
            ("affinity", one(self.affinity)),
            ("ipv4-prefix", one(self.prefix.ipv4)),
            ("ipv6-prefix", one(self.prefix.ipv6)),
            ("max-in-flight", one(self.max_in_flight)),
            ("hold-timeout", span(self.hold_timeout)),
            ("start-timeout", span(self.start_timeout)),
            ("drain-timeout", span(self.drain_timeout)),
            ("admin", self.admin.as_ref().map_or(Node::Nothing, one)),
            ("log-format", one(self.log.format)),
            ("log-level", one(&self.log.level)),
        ];
        match &self.program {
            Program::Command(words) => entries.push(("command", Node::Many(words.clone()))),
            Program::BuiltIn(engine) => entries.extend(engine_entries(engine)),
        }
        file::write(entries)
    }
}

fn engine_entries(engine: &Engine) -> [(&'static str, Node); 10] {
    [
        ("path", one(&engine.path)),
        ("no-serve-client", one(!engine.serve_client)),
        ("transports", many(&engine.transports)),
        ("ping-interval", millis(engine.ping_interval)),
        ("ping-timeout", millis(engine.ping_timeout)),
        ("upgrade-timeout", millis(engine.upgrade_timeout)),
        ("max-payload", one(engine.max_payload)),
        ("cors-origin", many(&engine.cors_origin)),
        ("static", path(engine.static_dir.as_deref())),
        ("client-dist", path(engine.client_dist.as_deref())),
    ]
}

fn one(value: impl ToString) -> Node {
    Node::One(value.to_string())
}

/// A list; an empty one is as if the key were not there.
fn many<T: ToString>(values: &[T]) -> Node {
    if values.is_empty() { Node::Nothing } else { Node::Many(values.iter().map(T::to_string).collect()) }
}

fn span(time: Duration) -> Node {
    one(humantime::format_duration(time))
}

fn millis(time: Duration) -> Node {
    one(time.as_millis())
}

fn path(path: Option<&Path>) -> Node {
    path.map_or(Node::Nothing, |path| one(path.display()))
}

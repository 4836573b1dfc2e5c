//! The effective configuration as YAML, in the keys that the file has.

use std::path::Path;
use std::time::Duration;

use crate::config::{Admin, CommandLine, Config, DialectChoice, EngineConfig, Often, Program, RoomsOptions};
use crate::flags::file::{self, YamlError, YamlValue};
use crate::flags::provenance::Provenance;
use crate::pool::RestartLimit;

/// Stands for a secret, and is too short to be one.
const NOT_SHOWN: &str = "(not shown)";

impl Config {
    /// This configuration as YAML. Given back with `--config` it makes the same configuration, but for a secret that was
    /// given as such: it is not shown, and what stands there instead is refused.
    ///
    /// What is off (no admin listener, no folder) has no line, nor has what is left to a Node program (its listeners).
    ///
    /// # Errors
    ///
    /// When the YAML library refuses, which it has no reason to for texts and numbers.
    pub fn to_yaml(&self) -> Result<String, YamlError> {
        let shown = |text: String| if text.starts_with('@') { text } else { NOT_SHOWN.to_owned() };
        let shown = |(key, node)| match node {
            // It may hold a password.
            YamlValue::One(url) if key == "redis" && url.contains(['@', '?']) => (key, one(NOT_SHOWN)),
            YamlValue::Many(texts) if key == "tag-key" => {
                (key, YamlValue::Many(texts.into_iter().map(shown).collect()))
            }
            _ => (key, node),
        };
        file::write(self.entries().into_iter().map(shown))
    }

    /// The keys whose values differ from those of another configuration.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let (ours, theirs) = (self.entries(), other.entries());
        let value =
            |entries: &[(&str, YamlValue)], key: &str| entries.iter().find(|(it, _)| *it == key).map(|it| it.1.clone());
        let mut keys: Vec<&str> = ours.iter().chain(&theirs).map(|(key, _)| *key).collect();
        keys.retain(|key| value(&ours, key) != value(&theirs, key));
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn entries(&self) -> Vec<(&'static str, YamlValue)> {
        let mut entries = vec![
            ("listen", self.listen.as_deref().map_or(YamlValue::Nothing, many)),
            ("backlog", one(self.backlog)),
            ("workers", one(self.workers)),
            ("worker-nofile", self.worker_nofile.map_or(YamlValue::Nothing, one)),
            ("user", self.user.as_ref().map_or(YamlValue::Nothing, one)),
            ("worker-env", path(self.worker_env.as_deref())),
            ("prefix-output", self.prefix_output.map_or(YamlValue::Nothing, one)),
            ("affinity", one(&self.affinity)),
            ("ipv4-prefix", one(self.prefix.ipv4)),
            ("ipv6-prefix", one(self.prefix.ipv6)),
            ("sticky-path", many(&self.sessions.sticky_paths)),
            ("proxy-protocol", one(self.proxies.protocol)),
            ("client-ip-header", self.proxies.header.as_ref().map_or(YamlValue::Nothing, one)),
            ("trusted-proxy", many(&self.proxies.trusted.iter().collect::<Vec<_>>())),
            ("unattributed", one(self.proxies.unattributed)),
            ("peek-timeout", span(self.first.timeout)),
            ("peek-timeout-action", one(self.first.timeout_action)),
            ("max-peeking", one(self.first.most)),
            ("max-rate-per-client", self.limits.rate_per_client.map_or(YamlValue::Nothing, one)),
            ("max-waiting-per-client", self.limits.waiting_per_client.map_or(YamlValue::Nothing, one)),
            ("max-rate", self.limits.rate.map_or(YamlValue::Nothing, one)),
            ("over-limit", if self.limits.has_some() { one(self.limits.over) } else { YamlValue::Nothing }),
            ("allow", many(&self.limits.allow.iter().collect::<Vec<_>>())),
            ("deny", many(&self.limits.deny.iter().collect::<Vec<_>>())),
            ("dispatch", one(self.dispatch)),
            ("max-in-flight", one(self.max_in_flight)),
            ("busy-poll", span(self.busy_poll)),
            ("hold-timeout", span(self.hold_timeout)),
            ("start-timeout", span(self.start_timeout)),
            ("drain-timeout", span(self.drain_timeout)),
            ("drain-signal", one(self.drain_signal)),
            ("hang-timeout", span(self.hang_timeout.unwrap_or_default())),
            ("hang-kill", one(self.hang_kill)),
            ("max-memory", self.care.max_memory.map_or(YamlValue::Nothing, one)),
            ("max-age", self.care.max_age.map_or(YamlValue::Nothing, span)),
            ("max-restarts", self.care.restarts.map_or(YamlValue::Nothing, |limit| one(often(limit)))),
            ("give-up", self.care.restarts.map_or(YamlValue::Nothing, |limit| one(limit.then))),
            ("health-check", self.care.health.as_ref().map_or(YamlValue::Nothing, |check| one(&check.path))),
            ("health-interval", self.care.health.as_ref().map_or(YamlValue::Nothing, |check| span(check.interval))),
            ("health-timeout", self.care.health.as_ref().map_or(YamlValue::Nothing, |check| span(check.timeout))),
            ("name", self.name.as_ref().map_or(YamlValue::Nothing, one)),
            ("admin", if self.admin == Admin::Default { YamlValue::Nothing } else { one(&self.admin) }),
            ("admin-token-file", path(self.admin_token_file.as_deref())),
            ("log-format", one(self.log.format)),
            ("log-level", one(&self.log.level)),
            ("log-file", path(self.log.file.as_deref())),
        ];
        if self.program.has_link() {
            entries.extend(rooms_entries(&self.rooms));
        }
        entries.extend(self.session_entries());
        match &self.program {
            Program::Command(command) => entries.extend(command_entries(command)),
            Program::BuiltIn(engine) => entries.extend(engine_entries(engine)),
        }
        entries
    }

    fn session_entries(&self) -> Vec<(&'static str, YamlValue)> {
        let (mut entries, sessions) = (Vec::new(), &self.sessions);
        if self.affinity.reads_requests() {
            entries
                .push(("tag-key", sessions.tag_key.as_ref().map_or(YamlValue::Nothing, |secret| many(&secret.said))));
        }
        if self.affinity.has_sessions() {
            entries.push(("host-id", sessions.host_id.map_or(YamlValue::Nothing, one)));
        }
        if self.affinity.has_sessions() && matches!(self.program, Program::Command(_)) {
            entries.push(("path", many(&sessions.paths)));
        }
        entries
    }
}

/// The configuration as YAML, with where each value comes from as a comment behind its key.
pub(super) fn with_sources(yaml: &str, provenance: &Provenance) -> String {
    let is_key =
        |key: &&str| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let source = |line: &str| {
        // A list's item begins with a dash, and what is in a longer text with a space.
        let key = line.split_once(':').map(|(key, _)| key).filter(|key| !key.starts_with('-')).filter(is_key)?;
        Some(provenance.source(key))
    };
    let lines = yaml.lines().map(|line| match source(line) {
        Some(source) => format!("{line} # {source}\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

fn command_entries(command: &CommandLine) -> Vec<(&'static str, YamlValue)> {
    let mut entries = vec![("command", YamlValue::Many(command.argv.clone())), ("dialect", one(command.dialect))];
    if command.dialect.may_be_node() {
        let node = &command.node;
        entries.extend([("node-style", one(&node.style)), ("node-serialization", one(node.serialization))]);
    }
    if command.dialect != DialectChoice::Haft {
        entries.push(("wait-ready", one(command.node.wait_ready)));
    }
    if command.dialect.may_be_node() {
        let node = &command.node;
        entries.extend([("relay-messages", one(node.relay_messages)), ("no-preload", one(!node.preload))]);
    }
    entries
}

fn rooms_entries(rooms: &RoomsOptions) -> Vec<(&'static str, YamlValue)> {
    let mut entries = vec![("rooms", one(rooms.shared))];
    if let Some(redis) = &rooms.redis {
        entries.extend([
            ("redis", one(&redis.url)),
            ("redis-prefix", one(&redis.prefix)),
            ("redis-required", one(redis.required)),
            ("redis-emitter", one(redis.emitter.as_deref().unwrap_or("off"))),
        ]);
    }
    entries
}

fn engine_entries(engine: &EngineConfig) -> [(&'static str, YamlValue); 11] {
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
        ("confine", one(engine.confine)),
    ]
}

fn one(value: impl ToString) -> YamlValue {
    YamlValue::One(value.to_string())
}

/// A list; an empty one is as if the key were not there.
fn many<T: ToString>(values: &[T]) -> YamlValue {
    if values.is_empty() { YamlValue::Nothing } else { YamlValue::Many(values.iter().map(T::to_string).collect()) }
}

fn often(limit: RestartLimit) -> Often {
    Often { most: limit.most, within: limit.within }
}

fn span(time: Duration) -> YamlValue {
    one(humantime::format_duration(time))
}

fn millis(time: Duration) -> YamlValue {
    one(time.as_millis())
}

fn path(path: Option<&Path>) -> YamlValue {
    path.map_or(YamlValue::Nothing, |path| one(path.display()))
}

#[cfg(test)]
mod tests;

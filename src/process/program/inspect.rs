//! `--inspect`: one port for each worker, as Node's own cluster gives it, since only one process can have a port.

use super::node;

/// Where Node's inspector listens by default (node(1), `--inspect`).
const DEFAULT_PORT: u16 = 9229;

/// What is different for one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerWorker {
    /// What to start.
    pub command: Vec<String>,
    /// Its NODE_OPTIONS, if there are any.
    pub node_options: Option<String>,
}

/// The command and NODE_OPTIONS for the worker of a slot: every port of an inspector that is named, and the usual one
/// where none is, becomes that port plus `slot`. Port 0 (any that is free) stays. So does everything else.
///
/// A start of Node is changed that stands in the command itself. For one in a text for a shell, or in a script that a
/// package manager runs (`is_in_text`), the usual port is changed by NODE_OPTIONS; a port that is named there stays.
///
/// While a slot's old worker drains it still has the port; Node then logs that, and the preload opens the inspector later.
pub fn for_slot(command: &[String], node_options: Option<&str>, slot: u16, is_in_text: bool) -> PerWorker {
    let options: Vec<String> = node_options.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let ports = Ports { slot, named: options.iter().any(|option| names_port(option)) };
    let node = command.iter().position(|word| node::is_node(word)).unwrap_or(command.len());
    let (before, node) = command.split_at(node);
    let mut node_options = node_options.map(|text| ports.options(text).unwrap_or_else(|| text.to_owned()));
    if is_in_text && node.is_empty() && !ports.named {
        let port = format!("--inspect-port={}", ports.port(DEFAULT_PORT));
        let others = node_options.filter(|options| !options.trim().is_empty());
        // Where --inspect stands in NODE_OPTIONS the port is there by now.
        node_options = match others {
            Some(options) if options.contains(&port) => Some(options),
            Some(options) => Some(format!("{options} {port}")),
            None => Some(port),
        };
    }
    let node = if node.is_empty() { None } else { ports.node(node) };
    let command = match node {
        Some(node) => [before, &node].concat(),
        None => command.to_vec(),
    };
    PerWorker { command, node_options }
}

/// How ports change for one worker.
#[derive(Debug)]
pub struct Ports {
    slot: u16,
    /// The environment names a port, so that a bare `--inspect` means that one.
    named: bool,
}

impl Ports {
    /// The words of a start of Node for this worker; `None` if they stay as they are.
    pub fn node(&self, command: &[String]) -> Option<Vec<String>> {
        let own = node::own_options(command);
        let options = self.shifted(&command[own.clone()], self.named)?;
        Some(command[..own.start].iter().cloned().chain(options).chain(command[own.end..].iter().cloned()).collect())
    }

    /// The text of NODE_OPTIONS for this worker; `None` if it stays as it is.
    pub fn options(&self, text: &str) -> Option<String> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        Some(self.shifted(&words, false)?.join(" "))
    }

    fn shifted(&self, options: &[String], named_elsewhere: bool) -> Option<Vec<String>> {
        let mut shifted = Vec::with_capacity(options.len() + 1);
        let mut named = named_elsewhere;
        let mut inspects = false;
        let mut value_follows = false;
        for option in options {
            let (name, value) =
                option.split_once('=').map_or((option.as_str(), None), |(name, value)| (name, Some(value)));
            if std::mem::take(&mut value_follows) {
                shifted.push(self.shift(option));
                continue;
            }
            let starts = matches!(name, "--inspect" | "--inspect-brk" | "--inspect-wait");
            let port = matches!(name, "--inspect-port" | "--debug-port");
            inspects |= starts;
            named |= port || (starts && value.is_some());
            value_follows = port && value.is_none();
            match value.filter(|_| starts || port) {
                Some(value) => shifted.push(format!("{name}={}", self.shift(value))),
                None => shifted.push(option.clone()),
            }
        }
        if inspects && !named {
            shifted.push(format!("--inspect-port={}", self.port(DEFAULT_PORT)));
        }
        (shifted != options).then_some(shifted)
    }

    /// `port`, `host:port` or `host`.
    fn shift(&self, place: &str) -> String {
        if let Ok(port) = place.parse() {
            return self.port(port).to_string();
        }
        match place.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) if !host.contains(':') || host.ends_with(']') => {
                format!("{host}:{}", self.port(port))
            }
            _ => format!("{place}:{}", self.port(DEFAULT_PORT)),
        }
    }

    /// Port 0, which means any, where the numbers end.
    fn port(&self, base: u16) -> u16 {
        if base == 0 { 0 } else { base.checked_add(self.slot).unwrap_or(0) }
    }
}

fn names_port(option: &str) -> bool {
    let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
    matches!(name, "--inspect-port" | "--debug-port")
        || (value.is_some() && matches!(name, "--inspect" | "--inspect-brk" | "--inspect-wait"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn node_options_name_a_port_for_each_worker_too() {
        let table = [
            ("--max-old-space-size=512", "node x.js", "--max-old-space-size=512", "node x.js"),
            ("--inspect", "node x.js", "--inspect --inspect-port=9231", "node x.js"),
            ("--inspect=9400 --foo", "node x.js", "--inspect=9402 --foo", "node x.js"),
            // The command line's bare --inspect means the port that the environment names.
            ("--inspect-port=9400", "node --inspect x.js", "--inspect-port=9402", "node --inspect x.js"),
        ];
        for (options, line, expected_options, expected) in table {
            let PerWorker { command, node_options } = for_slot(&words(line), Some(options), 2, false);
            assert_eq!(node_options.as_deref(), Some(expected_options), "{options}");
            assert_eq!(command, words(expected), "{options}");
        }
    }
}

//! What `--listen` comes to where a service manager has passed sockets.

use std::fmt;
use std::str::FromStr;

use crate::addr::{Listen, ListenAddr, ListenAddrError, PassedAddr};
use crate::flags::error::FlagsError;
use crate::flags::provenance::Provenance;

/// What precedes the name of a passed socket.
const NAME: &str = "name:";

/// What follows `--listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListenArg {
    /// An address.
    At(Listen),
    /// The sockets of this name that a service manager has passed, and the port of the server that they are for.
    Passed { name: String, server_port: Option<u16> },
}

impl Default for ListenArg {
    fn default() -> Self {
        Self::At(Listen::default())
    }
}

impl FromStr for ListenArg {
    type Err = ListenAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(name) = text.strip_prefix(NAME) else { return text.parse().map(Self::At) };
        // The port is read as that of any address.
        let server_port = match name.split_once('=') {
            Some((_, port)) => format!("0={port}").parse::<Listen>()?.server_port,
            None => None,
        };
        let name = name.split_once('=').map_or(name, |(name, _)| name).to_owned();
        Ok(Self::Passed { name, server_port })
    }
}

impl fmt::Display for ListenArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(listen) => listen.fmt(f),
            Self::Passed { name, server_port: None } => write!(f, "{NAME}{name}"),
            Self::Passed { name, server_port: Some(port) } => write!(f, "{NAME}{name}={port}"),
        }
    }
}

/// The listeners, where these sockets were passed. `args`: what was given; None where the default is in force.
///
/// A passed socket is used where `args` has its name or its address. One that is not mentioned there is a listener too,
/// as if it had been given last.
pub(super) fn resolve(
    args: Option<Vec<ListenArg>>,
    passed: &[PassedAddr],
    provenance: &Provenance,
) -> Result<Option<Vec<Listen>>, FlagsError> {
    let taken = |passed: &PassedAddr, server_port| Listen { addr: passed.addr.clone(), server_port, is_passed: true };
    let is_passed = |addr: &ListenAddr| passed.iter().any(|passed| passed.addr == *addr);
    let mut listen = Vec::new();
    for arg in args.iter().flatten() {
        match arg {
            ListenArg::At(given) => listen.push(Listen { is_passed: is_passed(&given.addr), ..given.clone() }),
            ListenArg::Passed { name, server_port } => {
                let before = listen.len();
                listen.extend(passed.iter().filter(|it| it.name == *name).map(|it| taken(it, *server_port)));
                if listen.len() == before {
                    return Err(not_passed(arg, name, passed, provenance));
                }
            }
        }
    }
    for rest in passed {
        if !listen.iter().any(|it| it.addr == rest.addr) {
            listen.push(taken(rest, None));
        }
    }
    Ok((args.is_some() || !listen.is_empty()).then_some(listen))
}

fn not_passed(arg: &ListenArg, name: &str, passed: &[PassedAddr], provenance: &Provenance) -> FlagsError {
    let names = passed.iter().map(|passed| passed.name.as_str()).collect::<Vec<_>>().join(", ");
    let there = if names.is_empty() { "none was passed at all".to_owned() } else { format!("there are: {names}") };
    FlagsError::NotPassed { name: provenance.name("listen"), arg: arg.to_string(), wanted: name.to_owned(), there }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::flags::{ParseOutcome, parse_with};

    fn parse(args: &[&str], passed: &[(&str, &str)]) -> Result<Config, String> {
        let passed: Vec<_> = passed
            .iter()
            .map(|(name, addr)| PassedAddr { name: (*name).to_owned(), addr: addr.parse().expect("an address") })
            .collect();
        match parse_with([], ["haft"].iter().chain(args), &passed) {
            ParseOutcome::Run(config) => Ok(*config),
            ParseOutcome::Check(_, exit) | ParseOutcome::Exit(exit) => Err(exit.to_string()),
        }
    }

    fn listen(args: &[&str], passed: &[(&str, &str)]) -> Vec<(String, bool)> {
        let listen = parse(args, passed).expect("a configuration").listen.unwrap_or_default();
        listen.iter().map(|listen| (listen.to_string(), listen.is_passed)).collect()
    }

    const TWO: [(&str, &str); 2] = [("web", "8080"), ("local", "unix:/run/x")];

    fn told(list: &[(&str, bool)]) -> Vec<(String, bool)> {
        list.iter().map(|(addr, is_passed)| ((*addr).to_owned(), *is_passed)).collect()
    }

    #[test]
    fn passed_sockets_take_the_place_of_the_default() {
        for program in [&[][..], &["--", "x"], &["--dialect=haft", "--", "x"]] {
            assert_eq!(listen(program, &TWO), told(&[(":8080", true), ("unix:/run/x", true)]), "{program:?}");
        }
    }

    #[test]
    fn a_passed_socket_is_found_by_its_name_or_its_address_and_is_never_left_unused() {
        let args = ["-l", "127.0.0.1:9", "-l", "name:local=3000", "--", "x"];
        assert_eq!(listen(&args, &TWO), told(&[("127.0.0.1:9", false), ("unix:/run/x=3000", true), (":8080", true)]));
        assert_eq!(listen(&["-l", "8080"], &TWO), told(&[(":8080", true), ("unix:/run/x", true)]));
        let same = [("web", "80"), ("web", "443")];
        assert_eq!(listen(&["-l", "name:web"], &same), told(&[(":80", true), (":443", true)]));
    }

    #[test]
    fn a_name_that_was_not_passed_is_refused_with_what_there_is() {
        let message = parse(&["-l", "name:wep"], &TWO).expect_err("refused");
        assert!(
            message.contains("--listen name:wep: the service manager has passed no socket of this name"),
            "{message}"
        );
        assert!(message.contains("FileDescriptorName=wep") && message.contains("there are: web, local"), "{message}");
        assert!(parse(&["-l", "name:web"], &[]).expect_err("refused").contains("none was passed at all"));
        assert!(parse(&["-l", "name:web=0", "--", "x"], &TWO).expect_err("refused").contains("from 1 to 65535"));
        assert!(parse(&["-l", "name:web=80"], &TWO).expect_err("refused").contains("only a server of a Node program"));
    }

    #[test]
    fn the_kernel_does_not_choose_among_workers_at_a_passed_socket() {
        let message = parse(&["--dispatch=kernel"], &TWO[..1]).expect_err("refused");
        assert!(message.contains("a passed socket has one accept queue"), "{message}");
    }
}

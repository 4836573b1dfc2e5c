//! What keeps a client on one worker.

use crate::config::Affinity;
use crate::flags::number::number;
use crate::route::Prefix;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Routing")]
pub(super) struct Routing {
    /// What keeps a client on one worker: its address (ip), its Socket.IO session (session), a value of its first request
    /// (query:NAME, cookie:NAME, header:NAME, path:N), a list of these, or nothing (none)
    ///
    /// With session, clients that share an address (behind one NAT or proxy) are spread over all workers, a client may
    /// change its address, and a session stays with its worker through a reload. haft looks at the first request of each
    /// connection without consuming it; workers tag their session ids, unmodified Node programs by a preload. With none, a
    /// connection goes to the worker with the fewest unacknowledged ones: only for services without long-polling.
    ///
    /// query:room keeps all clients with the same ?room= on one worker, cookie:uid those with the same cookie, header:x-user
    /// those with the same header, path:2 those of the same /doc/42. In a list, such as session,cookie:uid,ip, the first
    /// value that is present decides; without any, the address does, or nothing if the list ends in none. An empty value
    /// and one longer than 1024 bytes count as absent.
    #[arg(long, value_name = "ip|session|KIND:NAME|none[,...]", default_value = "ip")]
    pub(super) affinity: Affinity,

    /// Only requests below this path stick; others are spread by load; repeatable [default: all stick]
    #[arg(long, value_name = "PATH", value_parser = super::engine::request_path)]
    pub(super) sticky_path: Vec<String>,

    /// Number of leading bits of an IPv4 address that count; 24 keeps each /24 network on one worker
    #[arg(long, value_name = "BITS", default_value_t = Prefix::default().ipv4, value_parser = number::<0, 32, u8>)]
    pub(super) ipv4_prefix: u8,

    /// Number of leading bits of an IPv6 address that count; 64 ignores the part that privacy addresses change
    #[arg(long, value_name = "BITS", default_value_t = Prefix::default().ipv6, value_parser = number::<0, 128, u8>)]
    pub(super) ipv6_prefix: u8,
}

#[cfg(test)]
mod tests {
    use crate::flags::testing::{Folder, config, refused};
    use crate::route::Prefix;

    #[test]
    fn affinity_is_ip_unless_said_otherwise() {
        let affinity = |args: &[&str]| config(args).affinity.to_string();
        assert_eq!(affinity(&[]), "ip");
        for given in ["none", "session", "query:room", "session,cookie:uid,ip"] {
            assert_eq!(affinity(&["--affinity", given]), given);
        }
        assert!(refused(&["--affinity", "cookie"]).contains("write ip, session, none, query:NAME"));
        assert!(refused(&["--affinity", "ip,cookie:uid"]).contains("ip decides for every client: put it last"));
    }

    #[test]
    fn affinity_may_be_a_list_in_the_file() {
        let folder = Folder::new();
        let given = |value: &str| config(&["-c", &folder.yaml(&format!("affinity: {value}\n"))]).affinity.to_string();
        assert_eq!(given("session,query:room"), "session,query:room");
        assert_eq!(given("[session, \"cookie:uid\", ip]"), "session,cookie:uid,ip");
        assert!(
            refused(&["-c", &folder.yaml("affinity: [session, \"path:x\"]\n")]).contains("haft.yaml:1: affinity: ")
        );
    }

    #[test]
    fn a_sticky_path_is_a_path() {
        assert_eq!(config(&[]).sessions.sticky_paths, [""; 0]);
        let given = config(&["--sticky-path", "socket.io", "--sticky-path=/rtc/"]).sessions.sticky_paths;
        assert_eq!(given, ["/socket.io/", "/rtc/"]);
        assert!(refused(&["--sticky-path", "/a b"]).contains("write a path"));
    }

    #[test]
    fn a_prefix_is_no_longer_than_its_address() {
        assert_eq!(config(&[]).prefix, Prefix { ipv4: 32, ipv6: 64 });
        let others = config(&["--ipv4-prefix", "24", "--ipv6-prefix", "128"]).prefix;
        assert_eq!(others, Prefix { ipv4: 24, ipv6: 128 });
        assert!(refused(&["--ipv4-prefix", "33"]).contains("write a number from 0 to 32"));
        assert!(refused(&["--ipv6-prefix", "129"]).contains("write a number from 0 to 128"));
    }
}

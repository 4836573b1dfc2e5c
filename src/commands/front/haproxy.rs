//! HAProxy, 2.3 or newer.

use std::fmt;

use super::{Front, Told};
use crate::addr::ListenAddr;

/// All of haproxy.cfg.
pub(super) struct HaproxyConfig<'f>(pub(super) &'f Front);

impl fmt::Display for HaproxyConfig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(front) = self;
        writeln!(f, "# HAProxy before {} hosts with haft, written by `haft front haproxy`.\n#", front.host.len())?;
        front.hosts(f)?;
        f.write_str(BEFORE)?;
        match front.listen {
            ListenAddr::DualStack(port) => writeln!(f, "    bind :::{port} v4v6")?,
            _ => writeln!(f, "    bind {}", front.bind())?,
        }
        f.write_str(BACKEND)?;
        if front.client == Told::Header {
            f.write_str("    option forwardfor\n")?;
        }
        f.write_str("\n    # The id of a session names its host. While that is down, the others answer 400 and the client comes anew.\n")?;
        for host in &front.host {
            writeln!(f, "    use-server {} if {{ url_param(sid) -m reg {} }}", host.id, host.pattern())?;
        }
        f.write_str("\n    # /readyz: 200 where a new client would find a worker.\n    option httpchk GET /readyz\n")?;
        let proxy = if front.client == Told::Proxy { " send-proxy-v2" } else { "" };
        writeln!(
            f,
            "    default-server check port {} inter 1s fall 2 rise 1 on-marked-down shutdown-sessions{proxy}",
            front.admin_port
        )?;
        for host in &front.host {
            writeln!(f, "    server {} {}", host.id, host.addr())?;
        }
        Ok(())
    }
}

const BEFORE: &str = "
# Without maxconn HAProxy takes as many clients as its limit on descriptors allows (two for each: LimitNOFILE).
defaults
    mode http
    timeout connect 2s
    # Longer than Socket.IO's pingInterval + pingTimeout (45 s), so that no idle poll or WebSocket is cut.
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    timeout http-request 10s
    timeout check 1s
    retries 2
    option redispatch 1

frontend clients
";

const BACKEND: &str = "    default_backend hosts

backend hosts
    # Clients without a session, by their address: a host more or fewer moves only its share.
    balance source
    hash-type consistent
    # haft looks at the first request of a connection: one connection for each request.
    option http-server-close
    http-reuse never
    # A host that vanishes is noticed by connections that began before the last reload, too: these are not checked any more.
    option srvtcpka
    srvtcpka-idle 5s
    srvtcpka-intvl 2s
    srvtcpka-cnt 3
    # The same where something was sent to it.
    default-server tcp-ut 10s
";

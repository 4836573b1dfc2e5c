//! nginx, 1.15.6 or newer.

use std::fmt;

use super::Front;
use crate::addr::ListenAddr;

/// All of nginx.conf.
pub(super) struct NginxConfig<'f>(pub(super) &'f Front);

/// How nginx takes a host out: it has no checks of its own, so that a client's request has to find out.
const FAILS: &str = "max_fails=1 fail_timeout=5s";

impl fmt::Display for NginxConfig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(front) = self;
        writeln!(f, "# nginx before {} hosts with haft, written by `haft front nginx`.\n#", front.host.len())?;
        front.hosts(f)?;
        writeln!(
            f,
            "# nginx asks no host for /readyz: ask http://HOST:{}/readyz from where hosts are watched.",
            front.admin_port
        )?;
        f.write_str(MACHINE)?;
        f.write_str(BEFORE)?;
        f.write_str(
            "\n    # The id of a session names its host.\n    map $arg_sid $haft_host {\n        default any;\n",
        )?;
        for host in &front.host {
            writeln!(f, "        \"~{}\" {};", host.pattern(), host.id)?;
        }
        f.write_str(
            "    }\n\n    # Clients without a session, by their address: a host more or fewer moves only its share.\n",
        )?;
        // Room for what nginx knows of each of its servers, once for all of its processes.
        let zone = format!("{}k", 64 + 2 * front.host.len());
        writeln!(f, "    upstream haft_any {{\n        zone haft_any {zone};\n        hash $remote_addr consistent;")?;
        for host in &front.host {
            writeln!(f, "        server {} {FAILS};", host.addr())?;
        }
        f.write_str(
            "    }\n\n    # While a session's host is down, the others answer 400 and the client comes anew.\n",
        )?;
        for host in &front.host {
            let (id, addr) = (host.id, host.addr());
            writeln!(f, "    upstream haft_{id} {{\n        zone haft_{id} {zone};\n        server {addr} {FAILS};")?;
            for other in front.host.iter().filter(|other| other.id != host.id) {
                writeln!(f, "        server {} backup;", other.addr())?;
            }
            f.write_str("    }\n")?;
        }
        f.write_str("\n    server {\n")?;
        match front.listen {
            ListenAddr::DualStack(port) => writeln!(f, "        listen {port};\n        listen [::]:{port};")?,
            _ => writeln!(f, "        listen {};", front.bind())?,
        }
        f.write_str(LOCATION)
    }
}

/// nginx cannot set this for its own connections.
const MACHINE: &str = "#
# nginx notices a host that has vanished as soon as this machine's kernel does. With these settings that is after 11 s, or 13 s
# after something was sent to it; with the kernel's own clients notice first, by Socket.IO's ping (45 s). As root:
# sysctl -w net.ipv4.tcp_keepalive_time=5 net.ipv4.tcp_keepalive_intvl=2 net.ipv4.tcp_keepalive_probes=3 net.ipv4.tcp_retries2=5
# (in /etc/sysctl.d to stay; tcp_retries2 concerns the connections of clients, too).
";

const BEFORE: &str = "
worker_processes auto;
worker_rlimit_nofile 200000;
events { worker_connections 50000; }

http {
    map $http_upgrade $haft_connection { default upgrade; '' close; }
";

const LOCATION: &str = "        location / {
            proxy_pass http://haft_$haft_host;
            # No `keepalive` in the upstreams: haft looks at the first request of a connection, so each request has one.
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $haft_connection;
            proxy_connect_timeout 2s;
            # A host that has vanished is noticed by its open connections, too (how soon: at the top).
            proxy_socket_keepalive on;
            # Longer than Socket.IO's pingInterval + pingTimeout (45 s), so that no idle poll or WebSocket is cut.
            proxy_read_timeout 60s;
            proxy_send_timeout 60s;
            proxy_buffering off;
        }
    }
}
";

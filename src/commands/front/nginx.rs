//! nginx, 1.9 or newer.

use std::fmt;

use super::Front;
use crate::addr::ListenAddr;

/// All of nginx.conf.
pub(super) struct Configuration<'f>(pub(super) &'f Front);

/// How nginx takes a host out: it has no checks of its own, so that a client's request has to find out.
const FAILS: &str = "max_fails=1 fail_timeout=5s";

impl fmt::Display for Configuration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(front) = self;
        writeln!(f, "# nginx before {} hosts with haft, written by `haft front nginx`.\n#", front.host.len())?;
        front.hosts(f)?;
        writeln!(
            f,
            "# nginx asks no host for /readyz: ask http://HOST:{}/readyz from where hosts are watched.",
            front.admin_port
        )?;
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
        f.write_str("    upstream haft_any {\n        hash $remote_addr consistent;\n")?;
        for host in &front.host {
            writeln!(f, "        server {} {FAILS};", host.addr())?;
        }
        f.write_str(
            "    }\n\n    # While a session's host is down, the others answer 400 and the client comes anew.\n",
        )?;
        for host in &front.host {
            writeln!(f, "    upstream haft_{} {{\n        server {} {FAILS};", host.id, host.addr())?;
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
            # Longer than Socket.IO's pingInterval + pingTimeout (45 s), so that no idle poll or WebSocket is cut.
            proxy_read_timeout 60s;
            proxy_send_timeout 60s;
            proxy_buffering off;
        }
    }
}
";

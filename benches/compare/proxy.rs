//! nginx and HAProxy: one worker process or thread for each CPU, as Debian sets them up, without logs, with room for all
//! the connections that are held.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit};

use crate::Outcome;
use crate::contender::QUEUE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    NginxStream,
    NginxHttp,
    /// It knows the worker by a cookie: 1.29.6 and later.
    NginxCookie,
    /// It tells the client's address in a header.
    NginxForwarded,
    Haproxy,
    /// It tells the client's address in a PROXY header.
    HaproxyHeader,
    /// It reads HTTP, and knows the worker by a cookie.
    HaproxyCookie,
}

/// Descriptors that a proxy needs besides those of connections.
const SPARE: usize = 300;
/// Where Debian puts modules, and where others do.
const MODULES: [&str; 2] = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"];

/// How many connections can be held through a proxy, which needs two descriptors for each.
pub fn capacity() -> Outcome<usize> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok((usize::try_from(hard)?.min(200_000).saturating_sub(SPARE)) / 2)
}

/// The command that runs it before these workers, on this address.
pub fn command(proxy: Proxy, folder: &Path, entry: SocketAddr, backends: &[SocketAddr]) -> Outcome<Command> {
    let config = folder.join("proxy.conf");
    let text = match proxy {
        Proxy::NginxStream => nginx(folder, &stream(entry, backends)?)?,
        Proxy::NginxHttp => nginx(folder, &http(folder, entry, backends)?)?,
        Proxy::NginxCookie => {
            let sticky = "    sticky cookie worker path=/;\n";
            nginx(folder, &http(folder, entry, backends)?.replacen("    ip_hash;\n", sticky, 1))?
        }
        Proxy::NginxForwarded => {
            let told = "      proxy_set_header X-Forwarded-For $remote_addr;\n";
            nginx(
                folder,
                &http(folder, entry, backends)?.replacen(
                    "      proxy_set_header",
                    &format!("{told}      proxy_set_header"),
                    1,
                ),
            )?
        }
        Proxy::Haproxy => haproxy(entry, backends, "tcp", "balance source", |_| String::new())?,
        Proxy::HaproxyHeader => haproxy(entry, backends, "tcp", "balance source", |_| " send-proxy".to_owned())?,
        Proxy::HaproxyCookie => {
            let cookie = "balance roundrobin\n  option http-server-close\n  cookie server insert indirect nocache";
            haproxy(entry, backends, "http", cookie, |slot| format!(" cookie w{slot}"))?
        }
    };
    fs::write(&config, text)?;
    let mut command;
    if matches!(proxy, Proxy::Haproxy | Proxy::HaproxyHeader | Proxy::HaproxyCookie) {
        command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(config);
    } else {
        command = Command::new("nginx");
        command.arg("-e").arg(folder.join("error.log")).arg("-p").arg(folder).arg("-c").arg(config);
    }
    Ok(command)
}

fn nginx(folder: &Path, servers: &str) -> Outcome<String> {
    let connections = 2 * capacity()?;
    let folder = folder.display();
    let modules = MODULES.map(|place| format!("{place}/ngx_stream_module.so"));
    let module = modules.into_iter().find(|module| Path::new(module).exists());
    let load = module.map_or(String::new(), |module| format!("load_module {module};\n"));
    Ok(format!(
        "{load}daemon off;\nworker_processes auto;\nworker_rlimit_nofile {};\npid {folder}/nginx.pid;\n\
         error_log {folder}/error.log error;\nevents {{ worker_connections {connections}; }}\n{servers}",
        connections + SPARE
    ))
}

fn stream(entry: SocketAddr, backends: &[SocketAddr]) -> Outcome<String> {
    let mut text = String::from("stream {\n  upstream workers {\n    hash $remote_addr;\n");
    for backend in backends {
        writeln!(text, "    server {backend} max_fails=0;")?;
    }
    writeln!(text, "  }}\n  server {{ listen {entry} backlog={QUEUE}; proxy_pass workers; }}\n}}")?;
    Ok(text)
}

fn http(folder: &Path, entry: SocketAddr, backends: &[SocketAddr]) -> Outcome<String> {
    let mut text = String::from("http {\n  access_log off;\n");
    // So that it does not need the folders of the system.
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "  {kind}_temp_path {}/{kind};", folder.display())?;
    }
    text.push_str("  map $http_upgrade $connection_upgrade { default upgrade; '' close; }\n");
    text.push_str("  upstream workers {\n    ip_hash;\n");
    for backend in backends {
        writeln!(text, "    server {backend} max_fails=0;")?;
    }
    writeln!(text, "  }}\n  server {{\n    listen {entry} backlog={QUEUE};\n    location / {{")?;
    text.push_str("      proxy_pass http://workers;\n      proxy_http_version 1.1;\n");
    text.push_str("      proxy_set_header Host $host;\n      proxy_set_header Upgrade $http_upgrade;\n");
    text.push_str("      proxy_set_header Connection $connection_upgrade;\n      proxy_read_timeout 120s;\n");
    text.push_str("    }\n  }\n}\n");
    Ok(text)
}

fn haproxy(
    entry: SocketAddr,
    backends: &[SocketAddr],
    mode: &str,
    how: &str,
    more: impl Fn(usize) -> String,
) -> Outcome<String> {
    let mut text = format!(
        "global\n  maxconn {}\ndefaults\n  mode {mode}\n  timeout connect 10s\n  timeout client 120s\n  timeout server 120s\n\
         listen bench\n  bind {entry} backlog {QUEUE}\n  {how}\n",
        capacity()?
    );
    for (slot, backend) in backends.iter().enumerate() {
        writeln!(text, "  server w{slot} {backend}{}", more(slot))?;
    }
    Ok(text)
}

//! What the master costs: its memory with and without established connections, and its CPU per connection.
//!
//! ```text
//! cargo bench --bench master
//! ```
//!
//! It starts the real binary with its built-in workers, loads it over loopback from many addresses, bounded in number,
//! and prints a Markdown table. It judges nothing: these are measurements, and the machine may be noisy.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Connections whose hand-over is measured, in so many rounds.
const CONNECTIONS: usize = 100_000;
const ROUNDS: usize = 5;
/// Clients at once.
const CLIENTS: usize = 64;
/// WebSockets that are held.
const WEBSOCKETS: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Outcome<()> {
    let haft = Haft::start()?;
    println!("haft {}, 4 built-in workers, {} CPUs", env!("CARGO_PKG_VERSION"), thread::available_parallelism()?);
    println!("\n| what | measured |\n|---|---|");
    let fresh = haft.resident_kib()?;
    println!("| master's resident memory at start | {fresh} KiB |");
    requests(haft.address, 2_000)?;
    let before = haft.resident_kib()?;
    println!("| the same after 2,000 connections, none established | {before} KiB |");
    let held = websockets(haft.address, WEBSOCKETS)?;
    let during = haft.resident_kib()?;
    println!(
        "| the same with {} established WebSockets | {during} KiB ({:+} KiB) |",
        held.len(),
        during as i64 - before as i64
    );
    drop(held);

    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let (cpu, clock) = (haft.cpu()?, Instant::now());
        requests(haft.address, CONNECTIONS / ROUNDS)?;
        let cpu = haft.cpu()? - cpu;
        rounds.push((
            cpu.as_secs_f64() * 1e6 / (CONNECTIONS / ROUNDS) as f64,
            (CONNECTIONS / ROUNDS) as f64 / clock.elapsed().as_secs_f64(),
        ));
    }
    let spread = |of: fn(&(f64, f64)) -> f64| {
        let mut sorted: Vec<f64> = rounds.iter().map(of).collect();
        sorted.sort_by(f64::total_cmp);
        (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
    };
    let (median, least, most) = spread(|round| round.0);
    println!(
        "| master's CPU per connection, {CONNECTIONS} connections, {CLIENTS} clients | \
         {median:.1} us (rounds: {least:.1} to {most:.1}) |"
    );
    let (median, least, most) = spread(|round| round.1);
    println!("| connections per second, one request each | {median:.0} (rounds: {least:.0} to {most:.0}) |");
    println!("| accept to acknowledgement | {} |", haft.hand_over()?);
    println!("| master's resident memory at the end | {} KiB |", haft.resident_kib()?);
    Ok(())
}

/// The real program.
struct Haft {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Haft {
    fn start() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let admin = format!("unix:{}/admin.sock", folder.path().display());
        let mut child = Command::new(env!("CARGO_BIN_EXE_haft"))
            .args(["-w", "4", "-l", "127.0.0.1:0", "--drain-timeout", "1s", "--admin", &admin])
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no stderr")?).lines();
        let (mut address, mut ready) = (None, 0);
        while address.is_none() || ready < 4 {
            let line = lines.next().ok_or("haft ended before it was ready")??;
            if let Some((_, told)) = line.split_once("listening on ") {
                address = Some(told.trim().parse()?);
            }
            ready += usize::from(line.contains("worker is ready"));
        }
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address: address.ok_or("no address")?, folder })
    }

    fn proc(&self, name: &str) -> Outcome<String> {
        Ok(fs::read_to_string(format!("/proc/{}/{name}", self.child.id()))?)
    }

    fn resident_kib(&self) -> Outcome<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Time on a CPU: the first number of schedstat, in nanoseconds, of all threads.
    fn cpu(&self) -> Outcome<Duration> {
        let mut total = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            total += schedstat.split_whitespace().next().ok_or("empty schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(total))
    }

    /// The mean, and the bound below which 99 of 100 were, from the master's own histogram.
    fn hand_over(&self) -> Outcome<String> {
        let mut admin = std::os::unix::net::UnixStream::connect(self.folder.path().join("admin.sock"))?;
        admin.write_all(b"GET /status HTTP/1.1\r\nHost: haft\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        admin.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
        let status: serde_json::Value = serde_json::from_str(body)?;
        let told = &status["hand_over"];
        let count = told["count"].as_u64().ok_or("no count")?;
        let sum = told["sum_seconds"].as_f64().ok_or("no sum")?;
        let buckets = told["buckets"].as_array().ok_or("no buckets")?;
        let p99 = buckets.iter().find(|bucket| bucket["count"].as_u64() >= Some(count - count / 100));
        let p99 = p99.and_then(|bucket| bucket["le_seconds"].as_f64()).ok_or("no bound")?;
        Ok(format!("mean {:.0} us, 99 % within {:.0} us", sum * 1e6 / count as f64, p99 * 1e6))
    }
}

impl Drop for Haft {
    fn drop(&mut self) {
        // SIGTERM, so that the workers end too; then wait for the end.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().ok();
    }
}

/// A connection from the client number's own loopback address.
fn connect(to: SocketAddr, client: usize) -> Outcome<TcpStream> {
    let from =
        Ipv4Addr::new(127, 1 + (client / 62_500 % 250) as u8, (client / 250 % 250) as u8, (1 + client % 250) as u8);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // The port is chosen at connect, when the other end is known: ports of one address can then be used again.
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

/// So many connections with one small request each, from [`CLIENTS`] clients at once.
fn requests(to: SocketAddr, count: usize) -> Outcome<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let next = Arc::clone(&next);
            thread::spawn(move || -> Outcome<()> {
                loop {
                    let client = next.fetch_add(1, Ordering::Relaxed);
                    if client >= count {
                        return Ok(());
                    }
                    let mut stream = connect(to, client)?;
                    stream.write_all(b"GET /no/such/page HTTP/1.1\r\nHost: haft\r\nConnection: close\r\n\r\n")?;
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer)?;
                    if !answer.starts_with(b"HTTP/1.1 404") {
                        return Err(format!("unexpected answer: {}", String::from_utf8_lossy(&answer)).into());
                    }
                }
            })
        })
        .collect();
    clients.into_iter().try_for_each(|client| client.join().map_err(|_| "a client panicked")?)
}

/// Opens so many WebSockets and holds them.
fn websockets(to: SocketAddr, count: usize) -> Outcome<Vec<TcpStream>> {
    const REQUEST: &[u8] =
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: haft\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut held = Vec::with_capacity(count);
    for client in 0..count {
        let mut stream = connect(to, client)?;
        stream.write_all(REQUEST)?;
        held.push(stream);
    }
    for stream in &mut held {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        if &answer != b"HTTP/1.1 101" {
            return Err(format!("no WebSocket: {}", String::from_utf8_lossy(&answer)).into());
        }
    }
    Ok(held)
}

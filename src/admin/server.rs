//! The HTTP end: few connections, one request each, and a bound on everything, so that no client can hold the master.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use http::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::control::{Control, ControlError};
use super::pages::{self, Answer, Wanted};

/// Where the admin pages are served: a socket that is bound and listens already.
#[derive(Debug)]
pub enum AdminListener {
    /// An Internet socket.
    Tcp(TcpListener),
    /// A Unix stream socket. Who may connect is the file's mode.
    Unix(UnixListener),
}

impl AdminListener {
    /// Takes over a bound TCP listener. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made non-blocking or cannot be registered with the runtime.
    pub fn from_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::Tcp)
    }

    /// Takes over a bound Unix listener. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made non-blocking or cannot be registered with the runtime.
    pub fn from_unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(Self::Unix)
    }

    async fn accept(&self) -> io::Result<Client> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Client::Tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Client::Unix(stream)),
        }
    }
}

enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What one client, and all of them together, may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Connections at once; more wait in the kernel's accept queue.
    connections: usize,
    /// Bytes of a request's head.
    head: usize,
    /// Time until the request's head is there.
    head_time: Duration,
    /// Time until the master has answered.
    reply_time: Duration,
    /// Time of a connection in all, from accept to close.
    connection_time: Duration,
    /// Time the client has for closing its end once it was answered.
    linger_time: Duration,
}

impl Limits {
    const DEFAULT: Self = Self {
        connections: 32,
        head: 16 * 1024,
        head_time: Duration::from_secs(5),
        reply_time: Duration::from_secs(2),
        connection_time: Duration::from_secs(10),
        linger_time: Duration::from_secs(1),
    };
}

/// Bytes that are still read from a client that was answered.
const LINGER_BYTES: u64 = 256 * 1024;
/// How long not to accept after a failed accept: when descriptors have run out, the listener goes on being readable.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin pages until it is dropped; its connections end with it.
pub async fn serve(listener: AdminListener, control: Control) {
    serve_within(Limits::DEFAULT, listener, control).await;
}

async fn serve_within(limits: Limits, listener: AdminListener, control: Control) {
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        // A full house sheds load by not accepting.
        while connections.len() >= limits.connections {
            connections.join_next().await;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok(Client::Tcp(stream)) => drop(connections.spawn(attend(limits, stream, control.clone()))),
            Ok(Client::Unix(stream)) => drop(connections.spawn(attend(limits, stream, control.clone()))),
            Err(error) => {
                if !failing {
                    warn!(%error, "the admin listener cannot accept");
                }
                failing = true;
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        }
        failing = false;
    }
}

/// One connection from accept to close.
async fn attend(limits: Limits, stream: impl AsyncRead + AsyncWrite + Unpin, control: Control) {
    match timeout(limits.connection_time, exchange(limits, stream, &control)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "an admin connection failed"),
        Err(_) => debug!("an admin connection took too long"),
    }
}

/// One request and its answer. A further request takes a further connection: so a client that has been answered holds
/// nothing, and each answer has the whole of the connection's time.
async fn exchange(
    limits: Limits,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    control: &Control,
) -> Result<(), hyper::Error> {
    let service = service_fn(|request| answer(limits, request, control));
    let exchanged = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head)
        .keep_alive(false)
        // A client that sends its request and closes its writing end is answered all the same.
        .half_close(true)
        .serve_connection(TokioIo::new(&mut stream), service)
        .await;
    // Answered, be it only by "400 Bad Request".
    if exchanged.as_ref().map_or_else(hyper::Error::is_parse, |()| true) {
        let _ = timeout(limits.linger_time, drain(stream)).await;
    }
    exchanged
}

/// Reads on until the client closes, now that our writing end is closed. A socket closed with bytes unread (a refused body)
/// makes the kernel send a reset, which can destroy the answer before the client has read it (RFC 9112, section 9.6).
///
/// # Errors
///
/// They concern nobody: the answer is out.
async fn drain(stream: impl AsyncRead + Unpin) -> io::Result<u64> {
    tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
}

async fn answer(limits: Limits, request: Request<Incoming>, control: &Control) -> Result<Answer, Infallible> {
    let has_body = !request.body().is_end_stream();
    Ok(match pages::wanted(request.method(), request.uri().path(), has_body) {
        Wanted::Already(answer) => answer,
        Wanted::Page(page) => {
            let now = timeout(limits.reply_time, control.snapshot()).await.unwrap_or(Err(ControlError::Late));
            pages::render(page, request.headers(), now)
        }
    })
}

#[cfg(test)]
mod tests;

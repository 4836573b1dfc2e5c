//! The HTTP end: few connections, one request each, and a bound on everything, so that no client can hold the master.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::geteuid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::action::{self, ControlAction};
use super::answer::{Answer, AnswerBody};
use super::audit::{Audit, Closed};
use super::change::ControlError;
use super::control::Control;
use super::guard::{Caller, Guard};
use super::live::{self, Streams};
use super::logs;
use super::pages::{self, Wanted};
use super::places::{Places, Stage, StageReport};
use super::session;
use super::token::TokenFile;
use super::trace;

/// Where the admin pages are served: a socket that is bound and listens already.
#[derive(Debug)]
pub enum AdminListener {
    /// An Internet socket.
    Tcp(TcpListener),
    /// A Unix stream socket. The file's mode decides which users may connect.
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

    async fn accept(&self) -> io::Result<AdminClient> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| AdminClient::Tcp(stream, peer)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| AdminClient::Unix(stream)),
        }
    }
}

enum AdminClient {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// What every connection needs.
#[derive(Debug)]
struct Desk {
    limits: AdminLimits,
    control: Control,
    guard: Guard,
    streams: Streams,
}

/// What one client, and all of them together, may take.
#[derive(Debug, Clone, Copy)]
struct AdminLimits {
    /// Connections at once. One more takes the place of one that is idle; if there is none, it waits.
    connections: usize,
    /// Of these, connections that may be idle.
    idle: usize,
    /// Bytes of a request's head.
    head: usize,
    /// Time until the whole of the request's head is there.
    head_time: Duration,
    /// Time until the master has answered.
    reply_time: Duration,
    /// Time of a connection in all, from accept to close.
    connection_time: Duration,
    /// Time the client has for closing its end once it was answered.
    linger_time: Duration,
}

impl AdminLimits {
    const DEFAULT: Self = Self {
        connections: 32,
        idle: 24,
        head: 16 * 1024,
        head_time: Duration::from_secs(3),
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
///
/// `token_file` opens control on a TCP listener; without it control is off there. Must be called inside a tokio runtime.
pub async fn serve(listener: AdminListener, control: Control, token_file: Option<TokenFile>) {
    let guard = Guard { own_uid: geteuid().as_raw(), token_file };
    serve_from(Desk { limits: AdminLimits::DEFAULT, control, guard, streams: Streams::default() }, listener).await;
}

async fn serve_from(desk: Desk, listener: AdminListener) {
    let desk = Arc::new(desk);
    let mut connections = JoinSet::new();
    let (mut places, mut failing) = (Places::default(), false);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        if accepted.is_ok() {
            while !places.has_room(desk.limits.connections, desk.limits.idle) {
                match places.push_out() {
                    true => desk.control.audit.closed(Closed::PushedOut),
                    false => drop(connections.join_next().await),
                }
            }
        }
        let progress = StageReport::default();
        match accepted {
            Ok(AdminClient::Tcp(stream, peer)) => {
                // The peer may have reset it already.
                let Ok(local) = stream.local_addr() else { continue };
                let caller = Caller::tcp(peer, local);
                let task = connections.spawn(attend(Arc::clone(&desk), stream, caller, progress.clone()));
                places.take(task, progress);
            }
            Ok(AdminClient::Unix(stream)) => {
                let caller = Caller::Unix { uid: stream.peer_cred().ok().map(|peer| peer.uid()) };
                let task = connections.spawn(attend(Arc::clone(&desk), stream, caller, progress.clone()));
                places.take(task, progress);
            }
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
        // A request that has come already is read before the next connection could push this one out.
        yield_now().await;
    }
}

/// One connection from accept to close.
async fn attend(desk: Arc<Desk>, stream: impl AsyncRead + AsyncWrite + Unpin, caller: Caller, progress: StageReport) {
    let mut exchange = pin!(exchange(&desk, stream, &caller, &progress));
    let mut outcome = timeout(desk.limits.connection_time, &mut exchange).await;
    // A stream has no end, but a time for each piece.
    while outcome.is_err() && progress.is(Stage::Streaming) {
        outcome = timeout(desk.limits.connection_time, &mut exchange).await;
    }
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            if error.is_timeout() {
                desk.control.audit.closed(Closed::TooSlow);
            }
            debug!(%error, "an admin connection failed");
        }
        Err(_) => {
            desk.control.audit.closed(Closed::TooSlow);
            debug!("an admin connection took too long");
        }
    }
}

/// One request and its answer. A further request takes a further connection: so a client that has been answered holds
/// nothing, and each answer has the whole of the connection's time.
async fn exchange(
    desk: &Desk,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    caller: &Caller,
    progress: &StageReport,
) -> Result<(), hyper::Error> {
    let service = service_fn(|request| async {
        progress.reach(Stage::Answering);
        let answer = answer(desk, request, caller, progress).await;
        let is_live = matches!(answer.body(), AnswerBody::Live(_));
        progress.reach(if is_live { Stage::Streaming } else { Stage::Writing });
        Ok::<_, Infallible>(answer)
    });
    let exchanged = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(desk.limits.head_time)
        .max_buf_size(desk.limits.head)
        .keep_alive(false)
        // A client that sends its request and closes its writing end still gets its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(&mut stream), service)
        .await;
    // Answered, be it only by "400 Bad Request".
    if exchanged.as_ref().map_or_else(hyper::Error::is_parse, |()| true) {
        progress.reach(Stage::Lingering);
        let _ = timeout(desk.limits.linger_time, drain(stream)).await;
    }
    exchanged
}

/// Reads on until the client closes, now that our writing end is closed. A socket closed with bytes unread (a refused
/// body) makes the kernel send a reset, which can destroy the answer before the client has read it (RFC 9112, section
/// 9.6).
///
/// # Errors
///
/// They concern no caller: the answer is out.
async fn drain(stream: impl AsyncRead + Unpin) -> io::Result<u64> {
    tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
}

async fn answer(desk: &Desk, request: Request<Incoming>, caller: &Caller, progress: &StageReport) -> Answer {
    let has_body = !request.body().is_end_stream();
    match pages::wanted(request.method(), request.uri().path(), request.headers(), has_body) {
        Wanted::Already(answer) => answer,
        Wanted::Page(page) => {
            let now = match page.needs_figures() {
                true => in_time(desk, desk.control.figures()).await,
                false => in_time(desk, desk.control.snapshot()).await,
            };
            pages::render(page, request.headers(), now)
        }
        Wanted::Change(action) => change(desk, action, &request, caller).await,
        Wanted::Logs => match admit(desk, &request, caller, logs::PATH).await {
            Ok(()) => lines(desk, &request).await,
            Err(refusal) => refusal,
        },
        Wanted::Trace => match admit(desk, &request, caller, trace::PATH).await {
            Ok(()) => trace(desk, &request, progress).await,
            Err(refusal) => refusal,
        },
        Wanted::Session => match admit(desk, &request, caller, session::PATH).await {
            Ok(()) => session(desk, &request).await,
            Err(refusal) => refusal,
        },
        // Nothing would read the pieces of an answer to HEAD.
        Wanted::Events if request.method() == Method::HEAD => live::events_head(),
        Wanted::Events => live::events(&desk.control, desk.streams.begin(), progress.clone()),
    }
}

/// Refuses a caller that may not change anything: what it asks for is only for callers that may.
async fn admit(desk: &Desk, request: &Request<Incoming>, caller: &Caller, what: &'static str) -> Result<(), Answer> {
    let headers = request.headers();
    desk.guard.admit(caller, request.uri(), headers).await.map_err(|refused| {
        desk.control.audit.refused(caller, what, &refused, Instant::now());
        refused.refusal.answer(headers)
    })
}

/// What becomes of connections.
async fn trace(desk: &Desk, request: &Request<Incoming>, progress: &StageReport) -> Answer {
    let (uri, headers) = (request.uri(), request.headers());
    let Some(filter) = trace::wanted(uri.query()) else { return action::refuse_query(headers, trace::USAGE) };
    let following = in_time(desk, desk.control.trace(filter)).await;
    trace::answered(headers, following, desk.streams.begin(), progress.clone())
}

/// What workers wrote.
async fn lines(desk: &Desk, request: &Request<Incoming>) -> Answer {
    let (uri, headers) = (request.uri(), request.headers());
    match logs::wanted(uri.query()) {
        Some(wanted) => logs::answered(headers, in_time(desk, desk.control.logs(wanted)).await),
        None => action::refuse_query(headers, logs::USAGE),
    }
}

/// Whether a session is of this haft.
async fn session(desk: &Desk, request: &Request<Incoming>) -> Answer {
    match session::wanted(request.uri().query()) {
        Some(sid) => session::answered(in_time(desk, desk.control.has_signed(sid)).await),
        None => action::refuse_query(request.headers(), session::USAGE),
    }
}

/// Changes something, for callers that may.
async fn change(desk: &Desk, action: ControlAction, request: &Request<Incoming>, caller: &Caller) -> Answer {
    let (uri, headers) = (request.uri(), request.headers());
    if let Err(refusal) = admit(desk, request, caller, action.name()).await {
        return refusal;
    }
    if !request.body().is_end_stream() {
        return pages::refuse_body();
    }
    let change = match action.change(uri.query()) {
        Ok(change) => change,
        Err(error) => return action::say(StatusCode::BAD_REQUEST, headers, &error.to_string()),
    };
    let result = in_time(desk, desk.control.change(change)).await;
    match &result {
        Ok(Ok(text)) => desk.control.audit.done(caller, action, text),
        Ok(Err(denied)) => Audit::denied(caller, action, denied),
        Err(error) => Audit::denied(caller, action, error),
    }
    action.answered(headers, result)
}

/// What the master answers, if it does within the time allowed.
async fn in_time<T>(desk: &Desk, asked: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
    timeout(desk.limits.reply_time, asked).await.unwrap_or(Err(ControlError::Late))
}

#[cfg(test)]
mod tests;

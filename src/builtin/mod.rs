//! The built-in worker's engine: Socket.IO (socketioxide) on hyper, with the chat and its page, served on connections
//! that another process accepted.
//!
//! What it never does: accept, choose, or look at another worker. It is given streams and serves them to their end.
//!
//! # How it differs from Socket.IO's own server
//!
//! Outside it behaves as socket.io 4 does with the same options: the paths, the errors and their codes, the probe of an
//! upgrade and its time limit, the end of a session whose poll is abandoned, the client bundle and its headers. It
//! differs in this:
//!
//! * `socket.id` is the Engine.IO session id (Socket.IO's own has two), and has 16 characters.
//! * A ping follows the one before by `pingInterval` (Socket.IO's own: the pong before).
//! * A client for which 1024 packets wait loses further messages (Socket.IO's own buffers without limit).
//! * What a client can make the worker hold is bounded: four messages of `maxPayload` for each connection, 256 for all.
//!   Beyond that, and when a client reads nothing of what waits for a whole heartbeat, the connection is closed. While
//!   much waits for a client, nothing is read from it. (Socket.IO's own: no bound.)
//! * Compression is per response, for HTTP alone, Brotli included (Socket.IO's own: gzip and deflate for polls).
//! * A POST is answered `ok` as `text/plain` (Socket.IO's own: `text/html`).
//! * An idle connection is kept for 60 s (Node: 5 s).
//! * A POST or message above the limit ends the session (Socket.IO's own leaves that to the client).
//! * A request with more than 1000 headers is 431 (Node takes 2000 and passes over the rest), one with a transfer coding
//!   but `chunked` or another version than 1.0 and 1.1 is 400, and a WebSocket needs HTTP/1.1.
//! * There are no Engine.IO 3 clients (`allowEIO3`), no cookie, no WebTransport, no connection state recovery.

mod answers;
mod bounded;
mod budget;
mod bundle;
mod chat;
mod client_frames;
mod counted;
mod door;
mod drain;
mod elsewhere;
mod engine;
mod folder;
mod handshake;
mod heads;
mod heartbeat;
mod held;
mod metered;
mod outbox;
mod page;
mod patience;
mod pollers;
mod posted;
pub mod process;
mod query;
mod reason;
mod refusal;
mod rooms;
mod wire;

#[cfg(test)]
#[path = "../worker/testing.rs"]
mod testing;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use self::budget::{Excess, MemoryBudget};
use self::bundle::Bundle;
use self::door::EngineService;
use self::drain::{Conn, OpenConn, Registry};
use self::engine::{Engine, SidState};
use self::heads::WatchedStream;
use self::metered::{HttpIsOver, MeteredStream};
use self::outbox::Outboxes;
use self::page::Site;
use self::patience::Patient;
use crate::config::EngineConfig as Settings;
use crate::confine;
use haft_worker::EndAddr;
use haft_worker::scoreboard::Scoreboard;
use haft_worker::{Drain, Rooms, Tags};

/// How long a connection may take to send the head of its (next) request: Node's `server.headersTimeout`. It is also
/// how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes below which a response is not compressed (`httpCompression.threshold` of engine.io 6).
const COMPRESS_ABOVE: u64 = 1024;

/// The worker that serves, as the page shows it and as every client learns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Identity {
    /// The slot that this process fills.
    pub slot: u32,
    /// The generation it belongs to.
    pub generation: u32,
    /// Its process id.
    pub pid: u32,
}

/// Why the built-in worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// `--static` names something that cannot be listed.
    #[error("the static folder `{}` cannot be read: {source} (give a folder that exists, or leave out --static)", folder.display())]
    StaticDir {
        /// What was given.
        folder: PathBuf,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// `--client-dist` names a folder without a client in it.
    #[error("`{}` holds no Socket.IO client (give the `dist` folder of an installed socket.io-client, or leave out --client-dist)", .0.display())]
    ClientDist(PathBuf),
    /// An origin that cannot stand in a header.
    #[error("`{0}` is not an origin (write https://example.org, or * for all)")]
    CorsOrigin(String),
    /// No transport at all.
    #[error("no transport is allowed (give polling, websocket or both)")]
    NoTransport,
}

type Answering = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// The application of one worker process. Clones are the same application.
///
/// It must be used inside a tokio runtime; one thread is enough.
#[derive(Clone)]
pub struct App {
    registry: Arc<Registry>,
    engine: Engine,
    answering: Answering,
    budget: Arc<MemoryBudget>,
    /// How long a client may read nothing of what waits for it.
    patience: Duration,
    /// Where the files are that it serves.
    folders: Vec<PathBuf>,
}

impl App {
    /// Builds the application. The client bundle is looked for from the current folder upwards. With `tags`, sessions
    /// that begin over polling are tagged. `scoreboard`: where
    /// sessions and messages are counted. `others`: the link to the other workers.
    ///
    /// # Errors
    /// A folder is missing or an origin is malformed: see [`BuiltinError`].
    pub fn new(
        settings: &Settings,
        identity: Identity,
        tags: Option<Tags>,
        scoreboard: Scoreboard,
        others: Rooms,
    ) -> Result<Self, BuiltinError> {
        if settings.transports.is_empty() {
            return Err(BuiltinError::NoTransport);
        }
        let start = std::env::current_dir().unwrap_or_default();
        let bundle = match settings.serve_client {
            true => Some(Arc::new(Bundle::new(settings.client_dist.as_deref(), &start)?)),
            false => None,
        };
        let site = Site::new(settings, identity, tags.is_some())?;
        let bundle_folder = bundle.as_ref().and_then(|bundle: &Arc<Bundle>| bundle.folder());
        let folders = settings.static_dir.iter().cloned().chain(bundle_folder).collect();
        let registry = Registry::new();
        let (engine, io) = Engine::new(settings);
        let budget = MemoryBudget::new(usize::try_from(settings.max_payload).unwrap_or(usize::MAX), scoreboard.clone());
        counted::begin(&scoreboard);
        chat::put_on(&io, identity, Arc::clone(&registry), scoreboard.clone(), others);
        let outboxes = Outboxes::new(engine.clone(), Arc::clone(&budget), scoreboard);
        let door = EngineService::new(outboxes, engine.clone(), Arc::clone(&registry), settings, tags);
        let answers = ServiceBuilder::new().option_layer(cors(&settings.cors_origin)?).service_fn(below_path(
            settings.path.clone(),
            door,
            bundle,
        ));
        let answers = answers.map_response(|response| response.map(Body::new));
        let answering = answering(settings.path.clone(), BoxCloneSyncService::new(answers), site);
        let patience = settings.ping_interval + settings.ping_timeout;
        Ok(Self { registry, engine, answering, budget, patience, folders })
    }

    /// Confines this process to what it serves: no other files, programs or sockets. To be called before it has other
    /// threads.
    ///
    /// # Errors
    /// The kernel has not all that this takes. What it has is in force.
    pub fn confine(&self) -> Result<(), impl std::error::Error + use<>> {
        confine::worker(&self.folders)
    }

    /// Serves one HTTP/1.1 connection to its end, what it may be upgraded to included. A peer's error costs this
    /// connection only.
    ///
    /// The stream should have `TCP_NODELAY` set: an answer can be two short writes.
    pub fn serve_connection<S>(&self, stream: S, client: EndAddr) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let open = self.registry.open();
        let stream = Patient::new(stream, self.patience, Arc::clone(&self.budget));
        let (stream, http_is_over) = MeteredStream::new(stream, self.budget.hold());
        serve(open, self.answering.clone(), stream, client, http_is_over)
    }

    /// Keeps the sessions there are and opens no other (503, `Retry-After`), but for those that were on their way.
    /// Connections that no session needs are closed, after the answer they are in. Resolves when no session is left, of
    /// those that were opened with tags.
    pub fn linger(&self) -> impl Future<Output = ()> + Send + use<> {
        let (registry, engine) = (Arc::clone(&self.registry), self.engine.clone());
        async move { registry.linger(|sid| engine.known(sid) != SidState::No).await }
    }

    /// Ends the sessions one by one as `drain` schedules ([`Drain::goodbyes`]), a polling session by a close packet in
    /// the answer to its poll, a WebSocket by a close frame: clients take both for a lost transport and reconnect by
    /// themselves. Until its turn comes each goes on. To be run from the start of the worker to its end: it never
    /// resolves.
    pub fn say_goodbye(&self, drain: Drain) -> impl Future<Output = ()> + Send + use<> {
        let (registry, engine) = (Arc::clone(&self.registry), self.engine.clone());
        async move { registry.say_goodbye(drain, |sid| engine.known(sid) == SidState::Polling).await }
    }

    /// Finishes cleanly, together with [`App::say_goodbye`]. From now on no session begins (503, `Retry-After`); idle
    /// connections are closed, others after the answer they are in. Connections a session needs stay open until it has
    /// ended.
    ///
    /// Resolves when no connection is left. A client that does not close within 5 s of its goodbye is cut off; only an
    /// answer that a client does not read can take longer, so put a limit of your own around it.
    pub fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        let registry = Arc::clone(&self.registry);
        async move { registry.close().await }
    }

    /// How many connections and polling sessions were closed for the memory that they made this worker hold.
    pub fn closed_for_memory(&self) -> u64 {
        [Excess::Connection, Excess::Worker, Excess::Stalled].map(|excess| self.budget.closed(excess)).iter().sum()
    }

    /// Connections being served.
    pub fn connections(&self) -> usize {
        self.registry.count()
    }
}

/// What a request is accompanied by on its way through the layers.
#[derive(Clone)]
struct Origin {
    conn: Arc<Conn>,
    client: EndAddr,
}

async fn serve<S>(open: OpenConn, answering: Answering, stream: S, client: EndAddr, http_is_over: HttpIsOver)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let conn = &open.0;
    let origin = Origin { conn: Arc::clone(conn), client };
    let (stream, fault) = WatchedStream::new(stream);
    let number = AtomicU64::new(0);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(origin.clone());
        let refusal = heads::refusal(&request, number.fetch_add(1, Ordering::Relaxed), &fault);
        let (answering, conn) = (answering.clone(), Arc::clone(&origin.conn));
        async move {
            let answer = match refusal {
                Some(refusal) => Ok(refusal),
                None => answering.oneshot(request).await,
            };
            conn.asked();
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(heads::MAX_HEADERS)
        .max_buf_size(heads::MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let finished = tokio::select! {
        result = connection.as_mut() => Some(result),
        () = conn.finished() => None,
    };
    let result = match finished {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    http_is_over.store(true, Ordering::Relaxed);
    if let Err(error) = result {
        tracing::debug!(%client, %error, "a connection ended early");
    }
    if let Some(websocket) = conn.websocket() {
        websocket.closed().await;
    }
}

/// Sends a request to the engine's side or to the site.
fn answering(path: String, engine: Answering, site: Site) -> Answering {
    let path: Arc<str> = path.into();
    let route = tower::service_fn(move |request: Request<Incoming>| {
        let (path, engine, site) = (Arc::clone(&path), engine.clone(), site.clone());
        async move {
            if request.uri().path().starts_with(&*path) {
                return engine.oneshot(request).await;
            }
            Ok(site.serve(request).await)
        }
    });
    let compressed = SizeAbove::new(COMPRESS_ABOVE).and(NotForContentType::IMAGES).and(NotForContentType::SSE);
    let compression = CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(compressed);
    let service = ServiceBuilder::new().layer(compression).service(route);
    BoxCloneSyncService::new(service.map_response(|response: Response<_>| response.map(Body::new)))
}

/// Answers what is below the engine's path: the client bundle or the engine.
fn below_path(
    path: String,
    door: EngineService,
    bundle: Option<Arc<Bundle>>,
) -> impl Fn(Request<Incoming>) -> BoxedAnswer + Clone + Send + Sync + 'static {
    move |mut request| {
        let origin = request.extensions_mut().remove::<Origin>();
        let asks = matches!(*request.method(), Method::GET | Method::HEAD);
        let file = request.uri().path().strip_prefix(&path).filter(|_| asks).and_then(Bundle::file);
        let (door, bundle) = (door.clone(), bundle.clone());
        Box::pin(async move {
            let Some(Origin { conn, client }) = origin else { return Ok(Response::default()) };
            match (file, bundle) {
                (Some(file), Some(bundle)) => Ok(bundle.serve(file, request.headers()).await),
                _ => Ok(door.answer(conn, client, request).await),
            }
        })
    }
}

type BoxedAnswer = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// As Socket.IO's `cors: {origin}`: nothing without origins.
fn cors(origins: &[String]) -> Result<Option<CorsLayer>, BuiltinError> {
    let origin = match origins {
        [] => return Ok(None),
        origins if origins.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        origins => {
            let value =
                |origin: &String| HeaderValue::try_from(origin).map_err(|_| BuiltinError::CorsOrigin(origin.clone()));
            AllowOrigin::list(origins.iter().map(value).collect::<Result<Vec<_>, _>>()?)
        }
    };
    let methods = [Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::POST, Method::DELETE];
    let layer = CorsLayer::new().allow_origin(origin).allow_methods(AllowMethods::list(methods));
    Ok(Some(layer.allow_headers(AllowHeaders::mirror_request())))
}

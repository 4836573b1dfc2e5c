//! Asking a running haft: one request of HTTP over its control socket, or over TCP.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;

use crate::addr::ListenAddr;
use crate::admin::TokenFile;
use crate::sys::listen::SocketHandle;

/// The longest wait for an answer. The master answers within two seconds, or says that it is late; the machine may be overloaded.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than the longest answer has, that of 1024 slots.
const MAX_ANSWER: usize = 64 << 20;

/// More than a line of an answer without an end has.
const MAX_LINE: usize = 1 << 20;

/// A running haft, which may be asked.
#[derive(Debug)]
pub struct Client {
    addr: ListenAddr,
    socket: Option<SocketHandle>,
    token_file: Option<TokenFile>,
    patience: Duration,
    runtime: Runtime,
}

/// A connection to it.
enum ClientStream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// What it answered.
#[derive(Debug)]
pub struct ClientAnswer {
    /// The status of HTTP.
    pub status: StatusCode,
    /// The body; of an error the text.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there.
    #[error("{0}: no haft runs there any more (`haft status` shows those that do)")]
    Gone(ListenAddr),
    /// The socket is another user's.
    #[error("{0}: it belongs to another user: run this command as root or as the user that haft runs as")]
    NotPermitted(ListenAddr),
    /// No answer in time.
    #[error("{addr}: no answer within {} seconds", patience.as_secs_f64())]
    Late {
        /// The address that was asked.
        addr: ListenAddr,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The token file.
    #[error("--admin-token-file {}: {why}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Anything else.
    #[error("{addr}: {why}")]
    Other {
        /// The address that was asked.
        addr: ListenAddr,
        /// What went wrong.
        why: String,
    },
}

impl Client {
    /// For the haft whose admin listener is there. `token_file` opens its control, if that is on TCP.
    ///
    /// # Errors
    ///
    /// If this process can have no event loop.
    pub fn new(addr: ListenAddr, token_file: Option<PathBuf>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = match &addr {
            // Where it cannot be opened, connecting shows why.
            ListenAddr::Unix(path) => SocketHandle::open(path).ok(),
            _ => None,
        };
        Ok(Self { addr, socket, token_file: token_file.map(TokenFile::new), patience: PATIENCE, runtime })
    }

    /// The same, with another time for an answer.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Where it asks.
    pub fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    /// Reads a page.
    ///
    /// # Errors
    ///
    /// If there is no answer. An error status becomes an error.
    pub fn get(&self, path: &str) -> Result<ClientAnswer, ClientError> {
        self.ask(Method::GET, path)
    }

    /// Changes something.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub fn post(&self, path: &str) -> Result<ClientAnswer, ClientError> {
        self.ask(Method::POST, path)
    }

    /// Reads an answer that has no end, line by line, until it ends anyway or `on_line` returns false.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub fn follow(&self, path: &str, mut on_line: impl FnMut(&str) -> bool) -> Result<(), ClientError> {
        let request = self.request(Method::GET, path)?;
        self.runtime.block_on(async {
            match self.connect().await? {
                ClientStream::Unix(stream) => self.follow_over(stream, request, &mut on_line).await,
                ClientStream::Tcp(stream) => self.follow_over(stream, request, &mut on_line).await,
            }
        })
    }

    async fn follow_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Empty<Bytes>>,
        on_line: &mut impl FnMut(&str) -> bool,
    ) -> Result<(), ClientError> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.other(error))?;
        // It ends with the runtime, or when all that holds it is dropped.
        tokio::task::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.other(error))?;
        let status = response.status();
        let mut body = response.into_body();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| self.other(error))?.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = memchr::memchr(b'\n', &rest) {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line[..end]);
                if !status.is_success() {
                    return Err(self.other(line));
                }
                if !on_line(&line) {
                    return Ok(());
                }
            }
            if rest.len() > MAX_LINE {
                return Err(self.other("a line is too long"));
            }
        }
        Ok(())
    }

    fn ask(&self, method: Method, path: &str) -> Result<ClientAnswer, ClientError> {
        let request = self.request(method, path)?;
        let asking = async {
            match tokio::time::timeout(self.patience, self.exchange(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(ClientError::Late { addr: self.addr.clone(), patience: self.patience }),
            }
        };
        self.runtime.block_on(asking)
    }

    fn request(&self, method: Method, path: &str) -> Result<Request<Empty<Bytes>>, ClientError> {
        let host = match &self.addr {
            ListenAddr::Unix(_) => "localhost".to_owned(),
            ListenAddr::DualStack(port) => format!("localhost:{port}"),
            ListenAddr::Ip(addr) if addr.ip().is_unspecified() => format!("localhost:{}", addr.port()),
            ListenAddr::Ip(addr) => addr.to_string(),
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        request = request.header(header::ACCEPT, "application/json");
        if let Some(file) = &self.token_file {
            let wrong = |why: String| ClientError::Token { path: file.path().to_owned(), why };
            let token = file.text().map_err(|fault| wrong(fault.to_string()))?;
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Empty::new()).map_err(|error| self.other(error))
    }

    async fn exchange(&self, request: Request<Empty<Bytes>>) -> Result<ClientAnswer, ClientError> {
        match self.connect().await? {
            ClientStream::Unix(stream) => self.exchange_over(stream, request).await,
            ClientStream::Tcp(stream) => self.exchange_over(stream, request).await,
        }
    }

    async fn connect(&self) -> Result<ClientStream, ClientError> {
        let connected = match &self.addr {
            ListenAddr::Unix(path) => self.connect_to(path).await.map(ClientStream::Unix),
            ListenAddr::Ip(addr) => TcpStream::connect(addr).await.map(ClientStream::Tcp),
            ListenAddr::DualStack(port) => TcpStream::connect(("localhost", *port)).await.map(ClientStream::Tcp),
        };
        connected.map_err(|error| self.unreachable(error))
    }

    /// Connects to the socket that was found under this path: a haft is called otherwise once it knows its program's
    /// port, and another may have its first name by then.
    async fn connect_to(&self, path: &Path) -> io::Result<UnixStream> {
        let Some(socket) = &self.socket else { return UnixStream::connect(path).await };
        match UnixStream::connect(socket.path()).await {
            // There is no /proc.
            Err(error) if error.kind() == io::ErrorKind::NotFound => UnixStream::connect(path).await,
            connected => connected,
        }
    }

    async fn exchange_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        request: Request<Empty<Bytes>>,
    ) -> Result<ClientAnswer, ClientError> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.other(error))?;
        let answering = async {
            let response = sender.send_request(request).await.map_err(|error| self.other(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| self.other(error))?.to_bytes();
            Ok(ClientAnswer { status, body: String::from_utf8_lossy(&body).into_owned() })
        };
        tokio::pin!(connection);
        tokio::pin!(answering);
        tokio::select! {
            answer = &mut answering => answer,
            // It has written and read all that there is: what came is in the answer's hands.
            _ = &mut connection => answering.await,
        }
    }

    fn unreachable(&self, error: io::Error) -> ClientError {
        let addr = self.addr.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::Gone(addr),
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted(addr),
            _ => self.other(error),
        }
    }

    fn other(&self, error: impl fmt::Display) -> ClientError {
        ClientError::Other { addr: self.addr.clone(), why: error.to_string() }
    }
}

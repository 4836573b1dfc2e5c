//! What is served outside the engine's path: the chat page, or a folder of the user's instead.
//!
//! The page is compiled in, with the Socket.IO client it uses: it works on a machine that has no npm and no network.

use std::convert::Infallible;
use std::path::Path;

use axum::body::Body;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tower::ServiceExt;
use tower_http::services::ServeDir;
use tower_http::services::fs::DefaultServeDirFallback;

use super::folder::{self, Beneath};
use super::held::PIECE;
use super::{BuiltinError, Identity, chat};
use crate::config::EngineConfig as Settings;
use crate::page::{ICON, MAKE, POLICY};
use crate::route::Key;

/// Path, content type and content of what the page is made of.
const ASSETS: [(&str, &str, &[u8]); 6] = [
    ("/", "text/html; charset=utf-8", include_bytes!("assets/page.html")),
    ("/haft/page.css", "text/css; charset=utf-8", include_bytes!("assets/page.css")),
    ("/haft/page.js", "text/javascript; charset=utf-8", include_bytes!("assets/page.js")),
    (
        "/haft/client.js",
        "text/javascript; charset=utf-8",
        include_bytes!("assets/socket.io-client/socket.io.esm.min.js"),
    ),
    ("/haft/make.js", "text/javascript; charset=utf-8", MAKE),
    ("/haft/icon.svg", "image/svg+xml", ICON),
];

/// Where the page learns what it cannot know: the engine's settings and which worker served it.
const FACTS: &str = "/haft/page.json";

/// What is served outside the engine's path.
#[derive(Debug, Clone)]
pub(super) enum Site {
    Folder(ServeDir<DefaultServeDirFallback, Beneath>),
    Page { facts: Bytes },
}

impl Site {
    /// The user's folder if there is one, else the chat page. `sessions`: these stick, not addresses.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn new(settings: &Settings, identity: Identity, sessions: bool) -> Result<Self, BuiltinError> {
        match &settings.static_dir {
            Some(folder) => {
                readable(folder).map_err(|source| BuiltinError::StaticDir { folder: folder.clone(), source })?;
                let files = ServeDir::with_backend(folder, Beneath::new(folder));
                Ok(Self::Folder(files.with_buf_chunk_size(PIECE)))
            }
            None => Ok(Self::Page { facts: facts(settings, identity, sessions) }),
        }
    }

    /// Answers a request.
    pub(super) async fn serve(&self, mut request: Request<Incoming>) -> Response<Body> {
        match self {
            Self::Folder(folder) => {
                *request.uri_mut() = folder::own_address(request.uri());
                let answered: Result<_, Infallible> = folder.clone().oneshot(request).await;
                match answered {
                    Ok(response) if response.status() == StatusCode::NOT_FOUND => nothing_here(),
                    Ok(response) => in_utf8(response.map(Body::new)),
                    Err(never) => match never {},
                }
            }
            Self::Page { facts } => page(facts, request.method(), request.uri().path(), request.headers()),
        }
    }
}

/// A text without a declared encoding is UTF-8 (as with the usual static servers of Node).
fn in_utf8(mut response: Response<Body>) -> Response<Body> {
    if let Some(kind) = response.headers_mut().get_mut(CONTENT_TYPE) {
        let text = kind.to_str().unwrap_or_default();
        if text.starts_with("text/") && !text.contains("charset") {
            *kind = HeaderValue::try_from(format!("{text}; charset=utf-8")).unwrap_or(kind.clone());
        }
    }
    response
}

fn readable(folder: &Path) -> std::io::Result<()> {
    std::fs::read_dir(folder).map(|_| ())
}

fn facts(settings: &Settings, identity: Identity, sessions: bool) -> Bytes {
    let facts = serde_json::json!({
        "path": settings.path,
        "transports": settings.transports,
        "version": env!("CARGO_PKG_VERSION"),
        "worker": identity,
        "sessions": sessions,
        // haft gives a link to the other workers, but for --rooms off.
        "shared": std::env::var_os("HAFT_ROOMS_FD").is_some(),
        "limits": chat::LIMITS,
    });
    Bytes::from(facts.to_string())
}

fn page(facts: &Bytes, method: &Method, path: &str, headers: &HeaderMap) -> Response<Body> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if path == FACTS {
        return guarded("application/json", Body::from(facts.clone()), "no-store");
    }
    let Some((_, kind, content)) = ASSETS.into_iter().find(|(name, ..)| *name == path) else {
        return nothing_here();
    };
    let etag = HeaderValue::try_from(format!("\"{:016x}\"", Key::of_bytes(content).bits()));
    let etag = etag.unwrap_or(HeaderValue::from_static("\"0\""));
    let mut response = guarded(kind, Body::from(content), "no-cache");
    if holds(headers, &etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
    }
    response.headers_mut().insert(ETAG, etag);
    response
}

fn guarded(kind: &'static str, body: Body, cache: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn nothing_here() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "There is nothing at this address.\n")
}

/// A plain text.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether the client holds what `etag` names (RFC 9110, 13.1.2: a list, compared weakly).
pub(super) fn holds(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let lists = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).any(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || tag.as_bytes() == etag.as_bytes()
    })
}

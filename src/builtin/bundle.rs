//! The Socket.IO client as browsers load it from the server (`<script src="/socket.io/socket.io.js">`): the files of an
//! installed npm package, with the headers of Socket.IO's own server (`Server.serve` of socket.io 4).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tower_http::services::ServeFile;

use super::held::PIECE;
use super::wire::lock;
use super::{BuiltinError, page};

/// The files that Socket.IO's own server serves.
const FILES: [&str; 8] = [
    "socket.io.esm.min.js",
    "socket.io.esm.min.js.map",
    "socket.io.js",
    "socket.io.js.map",
    "socket.io.min.js",
    "socket.io.min.js.map",
    "socket.io.msgpack.min.js",
    "socket.io.msgpack.min.js.map",
];

/// Where npm puts them, below a folder that has packages installed.
const PLACES: [&str; 2] = ["node_modules/socket.io-client/dist", "node_modules/socket.io/client-dist"];

const MISSING: &str = "The Socket.IO client bundle is not installed on this server.\n\n\
    Install it in the folder that haft is started from (or one above):\n\n    \
    npm install socket.io-client\n\n\
    or name the folder of an installed one: --client-dist .../node_modules/socket.io-client/dist\n";

/// The bundle, wherever it is.
#[derive(Debug)]
pub(super) struct Bundle {
    start: PathBuf,
    dist: Mutex<Option<Arc<Dist>>>,
}

/// The `dist` folder of an installed client.
#[derive(Debug)]
struct Dist {
    folder: PathBuf,
    etag: HeaderValue,
}

impl Bundle {
    /// The bundle in `given`, or else the one that is found in `node_modules` of the folder `start` or one above.
    ///
    /// # Errors
    /// A folder was given, and is none or holds no client.
    pub(super) fn new(given: Option<&Path>, start: &Path) -> Result<Self, BuiltinError> {
        let dist = match given {
            None => find(start),
            Some(folder) if FILES.iter().any(|file| folder.join(file).is_file()) => Some(Dist::of(folder)),
            Some(folder) => return Err(BuiltinError::ClientDist(folder.to_owned())),
        };
        Ok(Self { start: start.to_owned(), dist: Mutex::new(dist.map(Arc::new)) })
    }

    /// Below what its files are, or may be installed later.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        let found = lock(&self.dist).as_ref().map(|dist| dist.folder.clone());
        found.or_else(|| (self.start != Path::new("/")).then(|| self.start.clone()))
    }

    /// Which file of the bundle a path below the engine's path names, if it names one.
    pub(super) fn file(name: &str) -> Option<&'static str> {
        FILES.into_iter().find(|file| *file == name)
    }

    /// Answers a request for `file`.
    pub(super) async fn serve(&self, file: &'static str, headers: &HeaderMap) -> Response<Body> {
        let Some(dist) = self.dist() else { return page::text(StatusCode::NOT_FOUND, MISSING) };
        if page::holds(headers, &dist.etag) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            dist.tag(&mut response);
            return response;
        }
        // In pieces: a client that does not read must not make the worker hold the file.
        let served = ServeFile::new(dist.folder.join(file)).with_buf_chunk_size(PIECE).try_call(Request::new(())).await;
        match served {
            Ok(served) if served.status() == StatusCode::OK => {
                let mut response = Response::new(Body::new(served.into_body()));
                let kind = if file.ends_with(".map") {
                    "application/json; charset=utf-8"
                } else {
                    "application/javascript; charset=utf-8"
                };
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                dist.tag(&mut response);
                response
            }
            served => {
                let error = served.err();
                tracing::debug!(?error, folder = %dist.folder.display(), file, "a file of the client bundle");
                page::text(StatusCode::NOT_FOUND, MISSING)
            }
        }
    }

    /// The folder, looked for again if there was none: it may have been installed since.
    fn dist(&self) -> Option<Arc<Dist>> {
        let mut dist = lock(&self.dist);
        if dist.is_none() {
            *dist = find(&self.start).map(Arc::new);
        }
        dist.clone()
    }
}

impl Dist {
    /// The version is the ETag, as in Socket.IO's own server.
    fn of(folder: &Path) -> Self {
        let version = version(folder).unwrap_or_else(|| "unknown".to_owned());
        let etag = HeaderValue::try_from(format!("\"{version}\""));
        Self { folder: folder.to_owned(), etag: etag.unwrap_or(HeaderValue::from_static("\"unknown\"")) }
    }

    fn tag(&self, response: &mut Response<Body>) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
        response.headers_mut().insert(ETAG, self.etag.clone());
    }
}

fn find(start: &Path) -> Option<Dist> {
    let places = start.ancestors().flat_map(|folder| PLACES.map(|place| folder.join(place)));
    places.into_iter().find(|folder| folder.is_dir()).map(|folder| Dist::of(&folder))
}

/// The version in the package's own `package.json`, or else the one in the banner of `socket.io.js`.
fn version(folder: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct PackageVersion {
        name: String,
        version: String,
    }
    let package = folder.parent().and_then(|package| std::fs::read(package.join("package.json")).ok());
    let package = package.and_then(|json| serde_json::from_slice::<PackageVersion>(&json).ok());
    if let Some(package) = package.filter(|package| package.name.starts_with("socket.io")) {
        return Some(package.version);
    }
    let script = std::fs::read_to_string(folder.join("socket.io.js")).ok()?;
    let banner = script.lines().find_map(|line| line.split_once("Socket.IO v"))?.1;
    Some(banner.trim().to_owned())
}

//! The user's folder (`--static`): what is in it is served, and nothing that a link leads to outside of it.

use std::fs::{Metadata, OpenOptions};
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use http::uri::PathAndQuery;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{Backend, File as Served};

/// Opens files below one folder. A link is followed as long as it leads to something in the folder.
#[derive(Debug, Clone)]
pub(super) struct Beneath(Arc<Path>);

type Soon<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

impl Beneath {
    /// Opens files below `folder`. The folder itself may be a link, also one that is changed while it is served.
    pub(super) fn new(folder: &Path) -> Self {
        Self(folder.into())
    }

    /// Whether what stands at `place`, which has no links in it, is in the folder.
    fn holds(&self, place: &Path) -> io::Result<()> {
        let folder = self.0.canonicalize()?;
        // Reported as missing: its existence is not disclosed either.
        place.starts_with(folder).then_some(()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&self, path: &Path) -> io::Result<std::fs::File> {
        // A pipe without a writer is not waited for.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
        // Where it was opened, whatever has become of the path since.
        self.holds(&std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?)?;
        file.metadata()?.is_file().then_some(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn look(&self, path: &Path) -> io::Result<Metadata> {
        let place = path.canonicalize()?;
        self.holds(&place)?;
        place.metadata()
    }
}

impl Backend for Beneath {
    type File = ServedFile;
    type Metadata = Metadata;
    type OpenFuture = Soon<'static, ServedFile>;
    type MetadataFuture = Soon<'static, Metadata>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let beneath = self.clone();
        Box::pin(async move {
            let file = tokio::task::spawn_blocking(move || beneath.open(&path)).await??;
            Ok(ServedFile(tokio::fs::File::from_std(file)))
        })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let beneath = self.clone();
        Box::pin(async move { tokio::task::spawn_blocking(move || beneath.look(&path)).await? })
    }
}

/// A regular file that was opened in the folder.
#[derive(Debug)]
pub(super) struct ServedFile(tokio::fs::File);

impl AsyncRead for ServedFile {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncSeek for ServedFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.0).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.0).poll_complete(cx)
    }
}

impl Served for ServedFile {
    type Metadata = Metadata;
    type MetadataFuture<'a> = Soon<'a, Metadata>;

    fn metadata(&self) -> Soon<'_, Metadata> {
        Box::pin(self.0.metadata())
    }
}

/// The request's address as one of this server: a redirection is made of it, and a path that begins with two slashes, or
/// with a backslash, is another host's for a browser.
pub(super) fn own_address(uri: &Uri) -> Uri {
    let text = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let path = text.trim_start_matches(['/', '\\']);
    PathAndQuery::try_from(format!("/{path}")).map_or_else(|_| Uri::from_static("/"), Uri::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_no_other_host() {
        for (asked, own) in [
            ("/", "/"),
            ("/sub?a=//b", "/sub?a=//b"),
            ("//sub", "/sub"),
            ("////sub//x", "/sub//x"),
            ("/\\sub", "/sub"),
            ("http://evil.example/sub?x", "/sub?x"),
            ("http://evil.example//sub", "/sub"),
            ("http://evil.example", "/"),
            ("*", "/*"),
        ] {
            assert_eq!(own_address(&asked.parse().expect("address")), own, "{asked}");
        }
    }
}

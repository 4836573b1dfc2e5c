//! Connections as `axum::serve` takes them.

use std::io;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};

use super::{Connection, Incoming, Peer};
use crate::stream::Stream;

/// `axum::serve(incoming, app)`. For `ConnectInfo<Peer>` in handlers, serve `app.into_make_service_with_connect_info::<Peer>()`.
impl Listener for Incoming {
    type Io = Stream;
    type Addr = Peer;

    /// Never yields again once the worker is to finish: shut the server down with [`crate::Drain::requested_only`].
    async fn accept(&mut self) -> (Stream, Peer) {
        match self.next().await {
            Ok(Some(Connection { stream, peer })) => return (stream, peer),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "the channel to the master failed");
                self.ended = true;
                self.drain.request(None);
            }
        }
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the master owns the listeners; each connection has its own"))
    }
}

impl Connected<IncomingStream<'_, Incoming>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        *stream.remote_addr()
    }
}

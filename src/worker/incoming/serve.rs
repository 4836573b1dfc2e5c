//! Connections as `axum::serve` takes them.

use std::io;

use super::{Connection, Incoming};
use crate::addr::EndAddr;
use crate::worker::stream::Stream;

/// `axum::serve(incoming, app)`: the client's address is there as `ConnectInfo<EndAddr>`.
impl axum::serve::Listener for Incoming {
    type Io = Stream;
    type Addr = EndAddr;

    /// Never yields again once the worker is to finish: shut the server down with [`crate::worker::Drain::requested_only`].
    async fn accept(&mut self) -> (Stream, EndAddr) {
        match self.next().await {
            Ok(Some(Connection { stream, client, .. })) => return (stream, client),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "the channel to the master failed");
                self.ended = true;
                self.drain.request(None);
            }
        }
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<EndAddr> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the master owns the listeners; each connection has its own"))
    }
}

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Incoming>> for EndAddr {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Incoming>) -> Self {
        *stream.remote_addr()
    }
}

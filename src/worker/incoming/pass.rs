//! Giving connections of other workers' sessions back to the master.

use std::io;
use std::os::fd::AsFd;

use super::{Incoming, Passing, Sent, poller};

impl Incoming {
    /// Passes on what is to be passed. When the kernel has too many descriptors on their way, it is tried again later.
    pub(super) async fn pass(&mut self) -> io::Result<()> {
        while let Some(Passing { passed, connection }) = &self.passing {
            match self.end.pass(*passed, connection.as_fd()) {
                Ok(Sent::Bytes(_)) => self.passing = None,
                Ok(Sent::TooManyInFlight) => return Ok(()),
                Ok(Sent::Full | Sent::TooLong) => poller::room(&self.end).await?,
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    tracing::debug!(client = %passed.client, "a connection of another worker's is closed: the master is gone");
                    self.passing = None;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Passes on what waits for it, and takes no more.
    pub(super) async fn pass_the_last(&mut self) -> io::Result<()> {
        self.to_pass.close();
        loop {
            self.speak().await?;
            if let Some(Passing { passed, .. }) = self.passing.take() {
                tracing::warn!(client = %passed.client, "a connection of another worker's is closed: too many are on their way");
            }
            match self.to_pass.recv().await {
                Some(passing) => self.passing = Some(passing),
                None => return Ok(()),
            }
        }
    }
}

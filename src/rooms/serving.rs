//! Serving one member: reading what it sends, and writing what waits for it.

use std::cell::RefCell;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;

use super::relay::{MUCH, MemberError, Relay};
use crate::sys::poller;
use haft_worker::protocol::rooms::Reader;

/// After how long room is looked for again where it cannot be waited for: haft is short of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves a member until it is gone. `stream` does not block.
///
/// # Errors
///
/// When it cannot be watched.
pub(super) async fn serve(relay: Rc<RefCell<Relay>>, stream: UnixStream, keeps: bool) -> io::Result<()> {
    let readable = poller::watch(stream.try_clone()?.into())?;
    let stream = Rc::new(stream);
    let number = {
        let mut relay = relay.borrow_mut();
        let number = relay.join(Rc::clone(&stream), keeps);
        relay.flush();
        number
    };
    let attending = async {
        let mut reader = Reader::default();
        let Some(wake) = relay.borrow().wake_of(number) else { return Ok(()) };
        loop {
            let is_blocked = relay.borrow().is_blocked(number);
            tokio::select! {
                ready = readable.readable() => {
                    let mut ready = ready?;
                    let read = relay.borrow_mut().read(number, &stream, &mut reader);
                    match read {
                        Ok(0) => return Ok(()),
                        // One that writes without end does not keep the others waiting.
                        Ok(MUCH) => yield_now().await,
                        // There is no more, and the kernel reports what comes (epoll(7), question 9).
                        Ok(_) => ready.clear_ready(),
                        Err(MemberError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                        Err(end) => return Err(end),
                    }
                }
                room = poller::room(&*stream), if is_blocked => {
                    if room.is_err() {
                        sleep(PAUSE).await;
                    }
                    relay.borrow_mut().flush_one(number)?;
                }
                () = wake.notified() => {}
            }
        }
    };
    if let Err(MemberError::Malformed(what)) = attending.await {
        tracing::warn!("a worker has sent {what} over its link for rooms, which is closed: it gets no broadcasts");
    }
    let mut relay = relay.borrow_mut();
    relay.leave(number);
    relay.flush();
    Ok(())
}

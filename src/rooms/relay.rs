//! Who is there, and who gets what.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::task::yield_now;

use super::counts::{Counts, Dropped};
use super::frame::{self, ALL, Frame, Kind, Malformed, Reader};
use super::member::Member;

/// Longest body of READY.
const MAX_TOLD: usize = 1024;

/// All members, by their numbers.
#[derive(Debug)]
pub(super) struct Relay {
    members: BTreeMap<u64, Member>,
    counts: Arc<Counts>,
    next: u64,
    /// Members for whom something has been put down that the kernel does not have yet.
    dirty: Vec<u64>,
}

/// Why a member was let go of.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Relay {
    /// A relay without members. `host`: the upper half of its members' numbers, not 0.
    pub(super) fn new(host: u32, counts: Arc<Counts>) -> Self {
        Self { members: BTreeMap::new(), counts, next: u64::from(host) << 32, dirty: Vec::new() }
    }

    /// Takes a member in, and yields its number.
    fn join(&mut self, stream: UnixStream) -> u64 {
        self.next += 1;
        let number = self.next;
        let mut member = Member::new(stream);
        member.push_always(&frame::write(Kind::Welcome, number, &[frame::VERSION]));
        self.members.insert(number, member);
        self.dirty.push(number);
        self.counts.set_members(self.members.len());
        number
    }

    /// A member is gone.
    fn leave(&mut self, number: u64) {
        let Some(member) = self.members.remove(&number) else { return };
        self.counts.set_members(self.members.len());
        if member.told.is_some() {
            self.tell(&frame::write(Kind::Lost, number, &[]), |_| true);
        }
    }

    /// What a member has said.
    fn hear(&mut self, from: u64, frame: Frame) {
        match frame.kind {
            Kind::Ready => self.ready(from, &frame),
            Kind::Message => self.pass(from, frame),
            Kind::Lost => self.counts.dropped(Dropped::Unsent, frame.member),
            // It is for members alone.
            Kind::Welcome => {}
        }
    }

    fn ready(&mut self, number: u64, frame: &Frame) {
        let body = Bytes::copy_from_slice(&frame.body()[..frame.body().len().min(MAX_TOLD)]);
        let others: Vec<_> = self.members.iter().filter_map(|(other, it)| Some((*other, it.told.clone()?))).collect();
        let Some(member) = self.members.get_mut(&number).filter(|member| member.told.is_none()) else { return };
        for (other, told) in others {
            member.push_always(&frame::write(Kind::Ready, other, &told));
        }
        member.told = Some(body.clone());
        self.dirty.push(number);
        self.tell(&frame::write(Kind::Ready, number, &body), |other| other != number);
    }

    /// Tells those who read of a member's coming or going.
    fn tell(&mut self, frame: &Bytes, is_for: impl Fn(u64) -> bool) {
        for (number, member) in &mut self.members {
            if member.told.is_some() && is_for(*number) {
                member.push_always(frame);
                self.dirty.push(*number);
            }
        }
    }

    fn pass(&mut self, from: u64, frame: Frame) {
        self.counts.message();
        let to = frame.member;
        let frame = frame.naming(from);
        if to != ALL && !self.members.contains_key(&to) {
            self.counts.dropped(Dropped::Left, 1);
            return;
        }
        for (number, member) in &mut self.members {
            if *number == to || (to == ALL && *number != from) {
                if member.push(&frame) {
                    self.counts.delivery(frame.len());
                } else {
                    self.counts.dropped(Dropped::Unread, 1);
                }
                self.dirty.push(*number);
            }
        }
    }

    /// Gives the kernel what was put down. A member that is gone is let go of where it is read.
    fn flush(&mut self) {
        self.dirty.sort_unstable();
        self.dirty.dedup();
        for number in self.dirty.drain(..) {
            if let Some(member) = self.members.get_mut(&number)
                && !member.is_blocked
                && let Err(error) = member.flush()
            {
                tracing::debug!(number, %error, "a member of the rooms cannot be written to");
            }
        }
    }
}

/// Serves one member until it is gone.
pub(super) async fn serve(relay: Rc<RefCell<Relay>>, stream: UnixStream) {
    let number = {
        let mut relay = relay.borrow_mut();
        let number = relay.join(stream);
        relay.flush();
        number
    };
    match attend(&relay, number).await {
        Err(End::Malformed(what)) => {
            tracing::warn!("a worker has sent {what} over its link for rooms, which is closed: it hears no broadcasts");
        }
        Ok(()) | Err(End::Io(_)) => {}
    }
    let mut relay = relay.borrow_mut();
    relay.leave(number);
    relay.flush();
}

/// Reads and writes until the member's end.
async fn attend(relay: &RefCell<Relay>, number: u64) -> Result<(), End> {
    let Some((stream, wake)) =
        relay.borrow().members.get(&number).map(|member| (Rc::clone(&member.stream), Rc::clone(&member.wake)))
    else {
        return Ok(());
    };
    let mut reader = Reader::default();
    loop {
        let is_blocked = relay.borrow().members.get(&number).is_some_and(|member| member.is_blocked);
        tokio::select! {
            ready = stream.readable() => {
                ready?;
                match stream.try_read_buf(reader.room()) {
                    Ok(0) => return Ok(()),
                    Ok(_) => take_in(&mut relay.borrow_mut(), number, &mut reader)?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.into()),
                }
                // One that writes without end does not keep the others waiting.
                yield_now().await;
            }
            ready = stream.writable(), if is_blocked => {
                ready?;
                if let Some(member) = relay.borrow_mut().members.get_mut(&number) {
                    member.flush()?;
                }
            }
            () = wake.notified() => {}
        }
    }
}

fn take_in(relay: &mut Relay, number: u64, reader: &mut Reader) -> Result<(), Malformed> {
    let outcome = loop {
        match reader.take() {
            Ok(Some(frame)) => relay.hear(number, frame),
            Ok(None) => break Ok(()),
            Err(malformed) => break Err(malformed),
        }
    };
    relay.flush();
    outcome
}

//! Messages with descriptors over a Unix socket (SCM_RIGHTS, unix(7)).

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};

use super::rights::Sender;

/// Most descriptors in one message: the kernel's SCM_MAX_FD; one more gives EINVAL.
pub const MAX_DESCRIPTORS: usize = 253;

const CONTROL_LEN: usize =
    // SAFETY: CMSG_SPACE only computes a length.
    unsafe {
        libc::CMSG_SPACE((MAX_DESCRIPTORS * mem::size_of::<RawFd>()) as libc::c_uint)
            + libc::CMSG_SPACE(mem::size_of::<libc::ucred>() as libc::c_uint)
    } as usize;

/// Room for the control messages of [`MAX_DESCRIPTORS`] descriptors and of a sender, aligned as `cmsghdr` must be.
#[repr(C, align(8))]
struct ControlBuffer(MaybeUninit<[u8; CONTROL_LEN]>);

/// A connected pair of Unix sockets, both non-blocking and close-on-exec, that keeps message boundaries.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?)
}

/// A connected pair of Unix sockets, both non-blocking and close-on-exec, that is a stream of bytes.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?)
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took this many bytes, and all descriptors with the first of them.
    Bytes(usize),
    /// The peer's queue is full (EAGAIN): wait until the socket is writable.
    Full,
    /// This user has too many descriptors in flight over all sockets (ETOOMANYREFS, or no memory for them): writability
    /// does not show when that has passed, so try again after an acknowledgement or a while.
    TooManyInFlight,
    /// The message is longer than the socket's send buffer allows (EMSGSIZE): send a shorter one.
    TooLong,
}

/// Sends `bytes` and copies of `descriptors` in one message, without waiting and without SIGPIPE.
///
/// At most [`MAX_DESCRIPTORS`], and as many as the iterator promises; `bytes` must not be empty. EPIPE and ECONNRESET
/// mean that the peer is gone.
pub fn send<'a>(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: impl ExactSizeIterator<Item = BorrowedFd<'a>>,
) -> io::Result<Sent> {
    if descriptors.len() > MAX_DESCRIPTORS || bytes.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control = ControlBuffer(MaybeUninit::uninit());
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data; all zero is its empty value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if descriptors.len() > 0 {
        let count = descriptors.len();
        let len = (count * mem::size_of::<RawFd>()) as libc::c_uint;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: the control buffer has room for MAX_DESCRIPTORS and is aligned, so CMSG_FIRSTHDR is inside it with
        // `count` numbers behind it; `take` keeps an iterator that yields more than it promised from writing behind
        // them.
        let written = unsafe {
            message.msg_controllen = libc::CMSG_SPACE(len) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            header.write(mem::zeroed());
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as usize;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            let numbers = descriptors.take(count).map(|descriptor| descriptor.as_raw_fd());
            numbers.enumerate().map(|(at, number)| ptr::write_unaligned(data.add(at), number)).count()
        };
        // Otherwise the kernel would send uninitialised bytes.
        if written < count {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    loop {
        // SAFETY: `message` points at live buffers of the lengths it states.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(Sent::Bytes(sent));
        }
        match obstacle(io::Error::last_os_error())? {
            None => {}
            Some(obstacle) => return Ok(obstacle),
        }
    }
}

/// Most messages that [`send_many`] sends in one call.
pub const MANY: usize = 32;

const ONE_LEN: usize =
    // SAFETY: CMSG_SPACE only computes a length.
    unsafe { libc::CMSG_SPACE(mem::size_of::<RawFd>() as libc::c_uint) } as usize;

/// Room for the control message of one descriptor.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct ControlOfOne(MaybeUninit<[u8; ONE_LEN]>);

/// How many bytes the kernel took of each of several messages, in their order. All but the last were taken whole.
#[derive(Debug)]
pub struct SentMany {
    taken: [u32; MANY],
    count: usize,
}

impl SentMany {
    /// Bytes taken, of each message that was taken at all.
    pub fn taken(&self) -> impl Iterator<Item = usize> + '_ {
        self.taken[..self.count].iter().map(|taken| *taken as usize)
    }
}

/// Sends messages one after the other in one system call (sendmmsg(2)), each with one descriptor or none, as [`send`]
/// would. At most [`MANY`] are looked at. The next call reports what stopped it after the first.
///
/// # Errors
///
/// Those of [`send`], for the first message.
pub fn send_many<'a>(
    socket: BorrowedFd<'_>,
    messages: impl Iterator<Item = (&'a [u8], Option<BorrowedFd<'a>>)>,
) -> io::Result<Result<SentMany, Sent>> {
    let mut controls = [ControlOfOne(MaybeUninit::uninit()); MANY];
    // SAFETY: both are plain data; all zero is their empty value.
    let (mut parts, mut headers): ([libc::iovec; MANY], [libc::mmsghdr; MANY]) = unsafe { mem::zeroed() };
    let mut count = 0;
    for (bytes, descriptor) in messages.take(MANY) {
        let part = &mut parts[count];
        *part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let message = &mut headers[count].msg_hdr;
        message.msg_iov = &raw mut *part;
        message.msg_iovlen = 1;
        if let Some(descriptor) = descriptor {
            message.msg_control = controls[count].0.as_mut_ptr().cast();
            message.msg_controllen = ONE_LEN;
            let len = mem::size_of::<RawFd>() as libc::c_uint;
            // SAFETY: the control buffer has room for one descriptor and is aligned, so the header is inside it with
            // one number behind it.
            unsafe {
                let header = libc::CMSG_FIRSTHDR(&raw const *message);
                header.write(mem::zeroed());
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(len) as usize;
                ptr::write_unaligned(libc::CMSG_DATA(header).cast::<RawFd>(), descriptor.as_raw_fd());
            }
        }
        count += 1;
    }
    loop {
        // SAFETY: the first `count` headers point at live buffers of the lengths they state.
        match unsafe { send_headers(socket, &mut headers[..count]) } {
            Ok(sent) => {
                let mut taken = [0; MANY];
                taken.iter_mut().zip(&headers[..sent]).for_each(|(taken, header)| *taken = header.msg_len);
                return Ok(Ok(SentMany { taken, count: sent }));
            }
            Err(error) => match obstacle(error)? {
                None => {}
                Some(obstacle) => return Ok(Err(obstacle)),
            },
        }
    }
}

/// Whether sendmmsg(2) is to be asked: not any more once it was refused (ENOSYS; EPERM by a seccomp profile).
static HAS_SENDMMSG: AtomicBool = AtomicBool::new(true);

/// Sends what the headers point at, in one system call or, where that is refused, one by one. Yields how many were
/// sent; an error is that of the first.
///
/// # Safety
///
/// The headers must point at live buffers of the lengths they state, each at one.
unsafe fn send_headers(socket: BorrowedFd<'_>, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let (socket, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    if HAS_SENDMMSG.load(Ordering::Relaxed) {
        // SAFETY: as the caller promises.
        let sent = unsafe { libc::sendmmsg(socket, headers.as_mut_ptr(), headers.len() as libc::c_uint, flags) };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
            return Err(error);
        }
        HAS_SENDMMSG.store(false, Ordering::Relaxed);
        tracing::info!(%error, "sendmmsg(2) is refused: connections are sent one by one, which costs more");
    }
    let mut count = 0;
    for header in headers {
        // SAFETY: as the caller promises; each message is one buffer.
        let (sent, whole) =
            unsafe { (libc::sendmsg(socket, &raw const header.msg_hdr, flags), (*header.msg_hdr.msg_iov).iov_len) };
        match u32::try_from(sent) {
            Ok(len) => header.msg_len = len,
            Err(_) if count > 0 => break,
            Err(_) => return Err(io::Error::last_os_error()),
        }
        count += 1;
        // As sendmmsg does: what follows belongs behind the rest.
        if (header.msg_len as usize) < whole {
            break;
        }
    }
    Ok(count)
}

/// What an error of sending means; nothing: it is to be tried again at once.
fn obstacle(error: io::Error) -> io::Result<Option<Sent>> {
    match error.raw_os_error() {
        Some(libc::EINTR) => Ok(None),
        Some(libc::EAGAIN) => Ok(Some(Sent::Full)),
        Some(libc::EMSGSIZE) => Ok(Some(Sent::TooLong)),
        Some(libc::ETOOMANYREFS | libc::ENOBUFS | libc::ENOMEM) => Ok(Some(Sent::TooManyInFlight)),
        _ => Err(error),
    }
}

/// What came of asking for a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A message of this many bytes; 0 is the end of the stream (the peer is gone).
    Message {
        /// Bytes written to the front of the buffer.
        len: usize,
        /// The kernel closed descriptors that did not fit (MSG_CTRUNC): this process is short of descriptors.
        descriptors_lost: bool,
        /// The message was longer than the buffer (MSG_TRUNC); never on a stream socket.
        cut: bool,
    },
    /// Nothing there yet.
    Empty,
}

/// From now on the kernel names the sender of each message that is received here: see [`receive_from`].
pub fn ask_for_senders(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::PassCred, &true)?)
}

/// Receives one message without waiting; its descriptors are added to `descriptors`, close-on-exec, in their order.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
    Ok(receive_from(socket, buffer, descriptors)?.0)
}

/// As [`receive`], with the sender, if [`ask_for_senders`] was called before it was sent. On a stream the bytes of two
/// senders never come in one message.
pub fn receive_from(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<(Received, Option<Sender>)> {
    let mut control = ControlBuffer(MaybeUninit::uninit());
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data; all zero is its empty value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN;
    let len = loop {
        // SAFETY: `message` points at live buffers of the lengths it states.
        let len =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) };
        if let Ok(len) = usize::try_from(len) {
            break len;
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN) => return Ok((Received::Empty, None)),
            _ => return Err(error),
        }
    };
    let sender = take_control(&message, descriptors);
    let received = Received::Message {
        len,
        descriptors_lost: message.msg_flags & libc::MSG_CTRUNC != 0,
        cut: message.msg_flags & libc::MSG_TRUNC != 0,
    };
    Ok((received, sender))
}

/// Moves every descriptor of a received message's control part into `descriptors`; returns the sender, if it is named.
fn take_control(message: &libc::msghdr, descriptors: &mut Vec<OwnedFd>) -> Option<Sender> {
    let mut sender = None;
    // SAFETY: the kernel has filled the control buffer; CMSG_FIRSTHDR/NXTHDR stay inside it. Each number in SCM_RIGHTS
    // is a new descriptor of this process that nothing else owns. What SCM_CREDENTIALS holds is checked to be a whole
    // ucred, which is numbers alone.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let count = ((*header).cmsg_len - libc::CMSG_LEN(0) as usize) / mem::size_of::<RawFd>();
                descriptors.reserve(count);
                for at in 0..count {
                    descriptors.push(OwnedFd::from_raw_fd(ptr::read_unaligned(data.add(at))));
                }
            }
            let whole = libc::CMSG_LEN(mem::size_of::<libc::ucred>() as libc::c_uint) as usize;
            if (*header).cmsg_level == libc::SOL_SOCKET
                && (*header).cmsg_type == libc::SCM_CREDENTIALS
                && (*header).cmsg_len >= whole
            {
                let libc::ucred { pid, uid, gid } = ptr::read_unaligned(libc::CMSG_DATA(header).cast());
                sender = Some(Sender { pid, uid, gid });
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    sender
}

#[cfg(test)]
mod tests;

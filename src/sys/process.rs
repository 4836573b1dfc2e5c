//! Starting worker processes and ending them, and what keeps one from ending.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::process::Stdio;

use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::{Pid, getpid, getppid};
use tokio::process::Child;

use super::account::Account;
use super::activation::{Activation, not_passed_on};
pub use super::activation::{Passed, Reserved};
use super::closing;
use super::descriptors::set_soft_limit;
use super::own_program;

/// A process to be started.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Program and arguments; never empty.
    pub command: &'a [String],
    /// Added to the environment that haft itself has, less what concerns haft alone (`NOTIFY_SOCKET` and the like).
    pub environment: &'a [(&'a str, String)],
    /// Its soft limit on descriptors (RLIMIT_NOFILE), if the hard one allows.
    pub descriptors: u64,
    /// What it inherits beside the standard streams.
    pub inherited: Inherited<'a>,
    /// Whether stdout comes through a pipe; otherwise it is haft's own.
    pub pipe_stdout: bool,
    /// Whether it ends by itself, in its own time, when its master has died; otherwise SIGTERM comes then.
    pub outlives_master: bool,
    /// The user that it is to run as. `None`: this process's own.
    pub account: Option<&'a Account>,
    /// What ends it when this process has died. `None`: the kernel, by SIGTERM.
    pub registration: Option<Registration<'a>>,
}

/// What a process reports to the guardian before it becomes its program, so that the guardian knows of every process.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    /// A socket to the guardian.
    pub socket: BorrowedFd<'a>,
    /// The message; the process id follows it (4 bytes, little-endian). The second byte, if it is not 0, means that the
    /// guardian sends SIGTERM at once when this process dies: the kernel does not, then.
    pub head: [u8; 2],
}

/// The descriptors that a process inherits.
#[derive(Debug, Clone, Copy)]
pub enum Inherited<'a> {
    /// These, under the same numbers.
    Same(&'a [BorrowedFd<'a>]),
    /// These listeners, as sd_listen_fds(3) has it. Their numbers must be [`Reserved`].
    Listeners(&'a [Passed<'a>]),
}

/// Starts a process in a process group of its own, with an stdin that stays open and silent and stderr coming through a
/// pipe.
///
/// The group keeps a terminal's Ctrl-C away from workers (the master asks them to finish) and lets a signal reach what
/// a wrapping shell has started. Signals are as they are by default: what this process ignores or blocks is not
/// inherited. The guardian ends what a killed master leaves. Without one, SIGTERM comes to the child when the calling
/// thread ends, unless [`Launch::outlives_master`].
///
/// An error is that of fork or exec: ENOENT and EACCES concern the program's path.
pub fn launch(launch: &Launch<'_>) -> io::Result<Child> {
    let (program, arguments) = launch.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = own_program::command(program)?;
    command.args(arguments).stdin(super::input::silent()?).stderr(Stdio::piped()).process_group(0);
    if launch.pipe_stdout {
        command.stdout(Stdio::piped());
    }
    let (same, mut activation) = match launch.inherited {
        Inherited::Same(same) => (same.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), None),
        Inherited::Listeners(passed) => {
            (Vec::new(), Some(Activation::new(launch.command, launch.environment, passed)?))
        }
    };
    not_passed_on().for_each(|name| _ = command.env_remove(name));
    for (name, value) in launch.environment {
        command.env(name, value);
    }
    let (master, descriptors) = (getpid(), launch.descriptors);
    let registration = launch.registration.map(|it| (it.socket.as_raw_fd(), it.head));
    let (outlives_master, account) = (launch.outlives_master, launch.account.cloned());
    let before_exec = move || {
        super::signals::reset()?;
        let is_guarded = registration.is_some_and(register);
        if let Some(account) = &account {
            account.assume()?;
        }
        // Not before: a change of user clears it. With a guardian it would do harm: while the threads of a killed master
        // end one after the other, it comes several times, and getppid() still names the master.
        prctl::set_pdeathsig((!is_guarded && !outlives_master).then_some(Signal::SIGTERM))?;
        if getppid() != master {
            // The master died before the request above: its death will not be signalled any more, and nothing needs
            // this process.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        same.iter().try_for_each(|descriptor| keep_open(*descriptor))?;
        match &mut activation {
            Some(activation) => Err(activation.become_it(descriptors)),
            None => set_soft_limit(descriptors),
        }
    };
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
    let _held = closing::hold();
    command.spawn()
}

/// Registers this process with the guardian. Returns whether that has succeeded. Between fork and exec: it makes system
/// calls only.
fn register((socket, [kind, by_signal]): (RawFd, [u8; 2])) -> bool {
    let [a, b, c, d] = getpid().as_raw().to_le_bytes();
    let sent = send(socket, &[kind, by_signal, a, b, c, d], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    sent.is_ok()
}

/// Lets a descriptor of the forked child stay open in the program.
fn keep_open(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: fcntl on a descriptor that the forked child holds; clearing its flags frees nothing.
    match unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Sends a signal to the process group that [`launch`] made. A group that is gone already is no error.
pub fn signal_group(leader: u32, signal: Signal) {
    // 0 would be our own group.
    if let Ok(leader @ 1..) = i32::try_from(leader) {
        killpg(Pid::from_raw(leader), signal).ok();
    }
}

/// How many TCP connections whose address at our end `is_meant` the processes of a group still hold, counted up to
/// `most`. To ask for one alone is cheapest.
///
/// All that are not closed count, half-closed ones too: the client may still wait for the answer. One that several
/// processes hold counts once; listeners do not. The address at our end distinguishes clients of a listener from what a
/// program connects to itself, such as its database.
///
/// It reads one file in `/proc` for each process of this host (proc_pid_stat(5), proc_pid_fd(5)) and, only if the group
/// holds any socket, the kernel's table of all TCP connections (proc_pid_net(5)): milliseconds, more on a host with
/// very many, where it is not for a thread that must not wait. The table may miss one while others close, so only two
/// answers of 0, one after the other, are to be trusted.
///
/// An error (EACCES: a process has changed its user) gives no information about connections.
pub fn connections_held(leader: u32, most: usize, is_meant: impl Fn(SocketAddr) -> bool) -> io::Result<usize> {
    let mut sockets = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if group_of(pid)? == Some(leader) {
            sockets_of(pid, &mut sockets)?;
        }
    }
    let mut held = 0;
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        if sockets.is_empty() || held >= most {
            break;
        }
        // Without IPv6 there is no second table.
        let Some(file) = unless_gone(File::open(table))? else { continue };
        for line in BufReader::with_capacity(64 << 10, file).lines() {
            let found = connection(&line?).filter(|(inode, _)| sockets.remove(inode));
            held += usize::from(found.is_some_and(|(_, local)| is_meant(local)));
            if sockets.is_empty() || held >= most {
                break;
            }
        }
    }
    Ok(held)
}

/// Where the processes of a group listen on TCP, on sockets that this process does not have. For what has failed: it
/// reads as much as [`connections_held`].
pub fn own_listeners(leader: u32) -> io::Result<BTreeSet<SocketAddr>> {
    let (mut theirs, mut ours) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if group_of(pid)? == Some(leader) {
            sockets_of(pid, &mut theirs)?;
        }
    }
    sockets_of(std::process::id(), &mut ours)?;
    let mut found = BTreeSet::new();
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let Some(file) = unless_gone(File::open(table))? else { continue };
        for line in BufReader::with_capacity(64 << 10, file).lines() {
            let listening = socket(&line?).filter(|(_, _, state)| state == LISTENING);
            let own = listening.filter(|(inode, ..)| theirs.contains(inode) && !ours.contains(inode));
            found.extend(own.map(|(_, local, _)| local));
        }
    }
    Ok(found)
}

/// The process group of a process; `None` if it has ended.
fn group_of(pid: u32) -> io::Result<Option<u32>> {
    let stat = unless_gone(fs::read_to_string(format!("/proc/{pid}/stat")))?;
    // Behind the name, which may hold anything: state, parent, group.
    let group = |stat: &str| stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok();
    Ok(stat.as_deref().and_then(group))
}

/// Adds the inodes of a process's sockets.
fn sockets_of(pid: u32, sockets: &mut BTreeSet<u64>) -> io::Result<()> {
    let Some(descriptors) = unless_gone(fs::read_dir(format!("/proc/{pid}/fd")))? else { return Ok(()) };
    for descriptor in descriptors {
        let Some(descriptor) = unless_gone(descriptor)? else { break };
        let Some(target) = unless_gone(fs::read_link(descriptor.path()))? else { continue };
        let inode = |target: &str| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok();
        sockets.extend(target.to_str().and_then(inode));
    }
    Ok(())
}

/// What belongs to a process that ends meanwhile is gone.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The inode and the address at our end of a line of the kernel's table; `None` if it is no connection.
fn connection(line: &str) -> Option<(u64, SocketAddr)> {
    let (inode, local, state) = socket(line)?;
    (![CLOSED, LISTENING].contains(&state.as_str())).then_some((inode, local))
}

/// TCP_CLOSE and TCP_LISTEN of the kernel's net/tcp_states.h, as its table writes them.
const CLOSED: &str = "07";
const LISTENING: &str = "0A";

/// The inode, the address at our end and the state of a line of the kernel's table.
fn socket(line: &str) -> Option<(u64, SocketAddr, String)> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, state) = (fields.next()?, fields.nth(1)?);
    let inode = fields.nth(5)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    // Words of four bytes, each in the order of this machine.
    let word = |at: usize| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::from(word(0)?),
        _ => {
            Ipv6Addr::from_bits(u128::from_be_bytes([word(0)?, word(1)?, word(2)?, word(3)?].concat().try_into().ok()?))
                .to_canonical()
        }
    };
    let local = SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?);
    Some((inode, local, state.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::{Duration, Instant};

    /// A process group that holds something and never touches it: a shell and what it has started.
    struct Group(std::process::Child);

    impl Group {
        fn holding(descriptor: impl Into<OwnedFd>) -> Self {
            let mut shell = Command::new("sh");
            shell.args(["-c", "sleep 1000 & wait"]).process_group(0).stdin(Stdio::null()).stdout(descriptor.into());
            // What other tests of this process hold for others to inherit is not this group's.
            // SAFETY: one system call with numbers for arguments, which may be made between fork and exec.
            unsafe {
                shell.pre_exec(|| match libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                });
            }
            Self(shell.spawn().expect("sh"))
        }

        fn held(&self, most: usize, is_meant: impl Fn(SocketAddr) -> bool) -> usize {
            connections_held(self.0.id(), most, is_meant).expect("counted")
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            signal_group(self.0.id(), Signal::SIGKILL);
            self.0.wait().ok();
        }
    }

    #[test]
    fn connections_count_until_they_are_closed_and_listeners_never() {
        for listen in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(listen).expect("bind");
            let port = listener.local_addr().expect("address").port();
            let host = if listen == "[::1]:0" { "::1" } else { "127.0.0.1" };
            let client = TcpStream::connect((host, port)).expect("connect");
            let (accepted, _) = listener.accept().expect("accept");
            let local = SocketAddr::new(host.parse().expect("address"), port);
            let group = Group::holding(accepted);
            // Those of others do not count: the client's end and the listener are this process's.
            assert_eq!(group.held(10, |address| address == local), 1, "{listen}");
            assert_eq!(group.held(10, |address| address != local), 0, "{listen}");
            assert_eq!(group.held(0, |_| true), 0, "{listen}");
            client.shutdown(Shutdown::Write).expect("shutdown");
            assert_eq!(group.held(1, |address| address == local), 1, "{listen}: it may still be answered");
            let leader = group.0.id();
            drop(group);
            // What the shell has started may end a moment after it.
            let deadline = Instant::now() + Duration::from_secs(10);
            while connections_held(leader, 10, |_| true).expect("counted") > 0 {
                assert!(Instant::now() < deadline, "{listen}");
                std::thread::yield_now();
            }
            let ours = Group::holding(listener.try_clone().expect("copy"));
            assert_eq!(ours.held(10, |_| true), 0, "{listen}");
            assert_eq!(own_listeners(ours.0.id()).expect("looked"), BTreeSet::new(), "{listen}: it is ours, too");
            drop(ours);
            let theirs = Group::holding(listener);
            let found = own_listeners(theirs.0.id()).expect("looked");
            assert!(found.iter().all(|found| found.port() == port) && found.len() == 1, "{listen}: {found:?}");
        }
    }

    /// What a program writes that is started so.
    async fn output(script: &str, inherited: Inherited<'_>) -> String {
        let command = ["sh", "-c", script].map(str::to_owned);
        let environment = [("SAID", "so".to_owned())];
        let launch = Launch {
            command: &command,
            environment: &environment,
            descriptors: 123,
            inherited,
            pipe_stdout: true,
            outlives_master: false,
            account: None,
            registration: None,
        };
        let output = super::launch(&launch).expect("sh").wait_with_output().await.expect("output");
        String::from_utf8(output.stdout).expect("text")
    }

    #[tokio::test]
    async fn a_program_takes_listeners_over_as_from_systemd() {
        let listeners = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0").expect("bind"));
        let _reserved = Reserved::new(listeners.len()).expect("reserved");
        let inode = |listener: &TcpListener| {
            fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd()))
                .expect("a descriptor")
                .display()
                .to_string()
        };
        // In another order than that of their numbers.
        let order = [&listeners[2], &listeners[0], &listeners[1]];
        let passed: Vec<Passed<'_>> = order
            .iter()
            .zip(["a", "b", "c"])
            .map(|(listener, name)| Passed { listener: listener.as_fd(), name: name.to_owned() })
            .collect();
        let script = "[ $LISTEN_PID = $$ ] && echo $LISTEN_FDS $LISTEN_FDNAMES $SAID ${HOME:+home} && \
            readlink /proc/self/fd/3 /proc/self/fd/4 /proc/self/fd/5";
        let written = output(script, Inherited::Listeners(&passed)).await;
        let home = if std::env::var_os("HOME").is_some() { " home" } else { "" };
        let expected = format!("3 a:b:c so{home}\n{}\n", order.map(inode).join("\n"));
        assert_eq!(written, expected);
    }

    #[tokio::test]
    async fn a_program_has_the_limit_on_descriptors_that_it_is_given() {
        let _reserved = Reserved::new(0).expect("reserved");
        for inherited in [Inherited::Same(&[]), Inherited::Listeners(&[])] {
            assert_eq!(output("ulimit -Sn; ulimit -Hn | grep -qx 123 && echo hard", inherited).await, "123\n");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error_whatever_it_would_inherit() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let _reserved = Reserved::new(1).expect("reserved");
        let passed = [Passed { listener: listener.as_fd(), name: "a".to_owned() }];
        let command = ["/no/such/program".to_owned()];
        for inherited in [Inherited::Listeners(&passed), Inherited::Same(&[listener.as_fd()])] {
            let launch = Launch {
                command: &command,
                environment: &[],
                descriptors: 123,
                inherited,
                pipe_stdout: false,
                outlives_master: false,
                account: None,
                registration: None,
            };
            let error = super::launch(&launch).expect_err("no such program");
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn other_sockets_are_no_connections() {
        let (left, _right) = UnixStream::pair().expect("pair");
        assert_eq!(Group::holding(left).held(10, |_| true), 0);
    }
}

//! haft as a process: started, watched, stopped, and never left behind.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{DEADLINE, Log, Status, children, eventually, is_running, is_stopped, signal};

/// What is to be started, and how.
#[derive(Debug)]
pub struct Setup {
    folder: TempDir,
    /// What runs haft: `sh -c 'ulimit ...; exec "$@"' sh`, or nothing.
    wrapper: Vec<String>,
    flags: Vec<String>,
    command: Vec<String>,
    user: Option<u32>,
    /// Whether it is started in its folder.
    is_inside: bool,
}

/// A running haft. Ended with its workers when this is dropped.
#[derive(Debug)]
pub struct Haft {
    child: Child,
    pub(super) log: Log,
    folder: TempDir,
    workers: Vec<u32>,
}

/// A free port of an address that no other test has: where nothing listens for a while, as between a killed master and
/// the next, the kernel would give the port to a process that asks for a free one.
pub fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 254 + 1;
    format!("127.{}.{}.{number}:0", 32 + std::process::id() / 256 % 64, std::process::id() % 256)
}

impl Setup {
    /// With these flags, beside a listener at an address of its own, unless they name one, and an admin socket.
    pub fn new(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut flags: Vec<String> = flags.iter().map(|flag| flag.replace("{dir}", &display(folder.path()))).collect();
        if !flags.iter().any(|flag| flag == "-l") {
            flags.extend(["-l".to_owned(), own_address()]);
        }
        let admin = format!("unix:{}", display(&folder.path().join("admin.sock")));
        flags.extend(["--admin".to_owned(), admin]);
        Self { folder, wrapper: Vec::new(), flags, command: Vec::new(), user: None, is_inside: false }.mode("plain")
    }

    /// With just what one types after `haft`, in the test's own folder, which `furnish` fills; it yields the words.
    pub fn typed(furnish: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let flags = furnish(folder.path());
        Self { folder, wrapper: Vec::new(), flags, command: Vec::new(), user: None, is_inside: true }
    }

    /// With nothing but what this file says, where `{dir}` is the test's own folder. It must name `{dir}/admin.sock`.
    pub fn from_file(yaml: &str) -> Self {
        let mut setup = Self::new(&[]);
        setup.flags = ["-c".to_owned(), display(&setup.folder().join("haft.yaml"))].into();
        write_file(setup.folder(), yaml);
        setup
    }

    /// With the workers that are built in, or that the file names.
    pub fn without_command(self) -> Self {
        self.command(&[])
    }

    /// With workers that behave so: see `tests/it/worker.py`.
    pub fn mode(self, mode: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/worker.py");
        let folder = display(self.folder.path());
        // Without looking for packages: it starts in half the time.
        self.command(&["python3", "-S", "-E", script, &folder, mode])
    }

    /// With an unmodified Node program as the worker, which answers with its process id.
    pub fn node(self) -> Self {
        self.command(&["node", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/server.cjs")])
    }

    /// With this program as the worker. `{dir}` is the test's own folder.
    pub fn command(mut self, command: &[&str]) -> Self {
        let folder = display(self.folder.path());
        self.command = command.iter().map(|word| word.replace("{dir}", &folder)).collect();
        self
    }

    /// With what a shell does first, such as `ulimit -n 64`.
    pub fn after(mut self, shell: &str) -> Self {
        self.wrapper = ["sh", "-c", &format!("{shell}; exec \"$@\""), "sh"].map(str::to_owned).into();
        self
    }

    /// Run by another program, which becomes it. `{dir}` is the test's own folder.
    pub fn under(mut self, program: &[&str]) -> Self {
        let folder = display(self.folder.path());
        self.wrapper = program.iter().map(|word| word.replace("{dir}", &folder)).collect();
        self
    }

    /// As another user, which may write to the test's folder. For a test that is root.
    pub fn user(mut self, user: u32) -> Self {
        std::os::unix::fs::chown(self.folder.path(), Some(user), None).expect("chown");
        self.user = Some(user);
        self
    }

    /// The test's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a file in the test's folder, which a worker waits for.
    pub fn open_gate(&self, name: &str) {
        fs::write(self.folder().join(name), "").expect("a file");
    }

    /// Starts it and waits for nothing.
    pub fn launch(self) -> Haft {
        self.launch_with(Log::of)
    }

    /// Starts it with this as its standard error, which the test reads, or not.
    pub fn launch_onto(self, stderr: OwnedFd) -> Haft {
        self.spawn(stderr.into(), |_| Log::unread())
    }

    fn launch_with(self, log: impl FnOnce(ChildStderr) -> Log) -> Haft {
        self.spawn(Stdio::piped(), |child| log(child.stderr.take().expect("stderr")))
    }

    fn spawn(self, stderr: Stdio, log: impl FnOnce(&mut Child) -> Log) -> Haft {
        let mut words = self.wrapper;
        words.push(env!("CARGO_BIN_EXE_haft").to_owned());
        words.extend(self.flags);
        if !self.command.is_empty() {
            words.push("--".to_owned());
            words.extend(self.command);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        if let Some(user) = self.user {
            command.uid(user);
        }
        if self.is_inside {
            command.current_dir(self.folder.path());
        }
        let mut child = command.spawn().expect("haft");
        let log = log(&mut child);
        Haft { child, log, folder: self.folder, workers: Vec::new() }
    }

    /// Starts it and waits until so many workers have said that they are ready, without asking the admin listener: the
    /// master's descriptors are then those that it always has.
    pub fn start_unasked(self, workers: usize) -> Haft {
        let mut haft = self.launch();
        haft.log.lines_with("worker is ready", workers);
        haft.note_workers();
        haft
    }

    /// Starts it and waits until a connection would find a worker.
    pub fn start(self) -> Haft {
        let mut haft = self.launch();
        eventually("a ready worker", || {
            haft.assert_running();
            haft.page("/readyz").filter(|(code, _)| *code == 200)
        });
        haft.note_workers();
        haft
    }

    /// Starts it with a standard error that is not read any more, and waits until every worker is ready.
    pub fn unheard(self) -> Haft {
        let mut haft = self.launch_with(|_| Log::unread());
        haft.wait("all workers ready", |status| status.all_ready());
        haft
    }

    /// Starts it and waits until every worker is ready.
    pub fn start_all(self) -> Haft {
        let mut haft = self.start();
        haft.wait("all workers ready", |status| status.all_ready());
        haft.note_workers();
        haft
    }
}

impl Haft {
    /// The master's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the master and its workers write to standard error.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The test's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a file in the test's folder, which a worker waits for.
    pub fn open_gate(&self, name: &str) {
        fs::write(self.folder().join(name), "").expect("a file");
    }

    /// Removes a file from the test's folder.
    pub fn close_gate(&self, name: &str) {
        fs::remove_file(self.folder().join(name)).expect("a file");
    }

    /// Where clients connect, in the order of `-l`, as written to the log.
    pub fn addresses(&self, count: usize) -> Vec<String> {
        let lines = self.log.lines_with("listening on ", count);
        let address = |line: &String| {
            let (_, told) = line.split_once("listening on ").expect("an address");
            let word = told.split(' ').next().unwrap_or_default();
            word.strip_prefix("http://").unwrap_or(word).to_owned()
        };
        lines.iter().map(address).collect()
    }

    /// Where clients connect, if there is one TCP listener.
    pub fn address(&self) -> SocketAddr {
        self.addresses(1)[0].parse().expect("an address")
    }

    /// Writes the file that [`Setup::from_file`] began with anew.
    pub fn write_file(&self, yaml: &str) {
        write_file(self.folder(), yaml);
    }

    /// A page of the admin listener: code and body; `None` if it cannot be had now.
    pub fn page(&self, path: &str) -> Option<(u16, String)> {
        self.ask_admin("GET", path)
    }

    /// Asks haft to change something, and returns its answer: code and text.
    pub fn post(&self, path: &str) -> (u16, String) {
        self.ask_admin("POST", path).expect("an answer of the admin listener")
    }

    fn ask_admin(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(self.folder().join("admin.sock")).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        stream
            .write_all(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The master's state now, with the books checked.
    pub fn status(&self) -> Status {
        let (code, body) = eventually("the status", || self.page("/status"));
        assert_eq!(code, 200, "{body}");
        Status::read(&body)
    }

    /// Reads the status until it is as wanted.
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        eventually(what, || {
            self.assert_running();
            let (code, body) = self.page("/status")?;
            assert_eq!(code, 200, "{body}");
            Some(Status::read(&body)).filter(&wanted)
        })
    }

    /// The process of the worker in a slot.
    pub fn worker(&self, slot: usize) -> u32 {
        self.status().pid(slot).expect("a worker")
    }

    /// Stops the worker of a slot and yields its process.
    pub fn stop_worker(&self, slot: usize) -> u32 {
        let worker = self.worker(slot);
        signal(worker, Signal::SIGSTOP);
        eventually("the worker is stopped", || is_stopped(worker).then_some(()));
        worker
    }

    /// All processes that the master has started and not yet seen the end of.
    pub fn children(&self) -> Vec<u32> {
        children(self.pid())
    }

    /// Sets the master's limit on descriptors: the number that the next one must be below.
    pub fn limit_descriptors(&self, limit: u32) {
        let (pid, limit) = (self.pid().to_string(), format!("--nofile={limit}:"));
        let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status().expect("prlimit");
        assert!(status.success(), "{status}");
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) {
        super::signal(self.pid(), signal);
    }

    /// Waits until the master has ended by itself.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("the master's end", || self.child.try_wait().expect("wait"))
    }

    /// Ends it in an orderly way, and asserts that nothing is left: no process, no socket file.
    pub fn stop(mut self) {
        self.note_workers();
        self.signal(Signal::SIGTERM);
        let status = self.wait_for_exit();
        assert!(status.success(), "{status}");
        self.assert_nothing_left();
    }

    /// Waits for the end of a master that was killed, and keeps its folder.
    pub fn end_and_keep_folder(mut self) -> TempDir {
        self.wait_for_exit();
        let empty = tempfile::tempdir().expect("a folder");
        std::mem::replace(&mut self.folder, empty)
    }

    /// Asserts that the master and its workers are gone, and the admin socket's file too.
    pub fn assert_nothing_left(&self) {
        self.assert_nothing_left_but(&[]);
    }

    /// The same, where the sockets of these names are another's.
    pub fn assert_nothing_left_but(&self, others: &[&str]) {
        for worker in &self.workers {
            eventually("the end of a worker", || (!is_running(*worker)).then_some(()));
        }
        for entry in fs::read_dir(self.folder()).expect("the folder") {
            let entry = entry.expect("an entry");
            let is_another_s = others.iter().any(|name| entry.file_name() == *name);
            assert!(
                is_another_s || !entry.file_type().expect("a type").is_socket(),
                "{} is left",
                entry.path().display()
            );
        }
        let log = self.log.so_far();
        assert!(!log.contains("bug in haft"), "{log}");
    }

    /// Remembers the workers of now, so that they can be ended or looked for when the master is gone.
    pub fn note_workers(&mut self) {
        for worker in children(self.pid()) {
            if !self.workers.contains(&worker) {
                self.workers.push(worker);
            }
        }
    }

    pub(super) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("wait") {
            panic!("haft has ended: {status}\n{}", self.log.whole());
        }
    }
}

impl Drop for Haft {
    fn drop(&mut self) {
        self.note_workers();
        // It may be gone already. Its workers may be stopped, so that they would not end by themselves.
        self.child.kill().ok();
        self.child.wait().ok();
        self.workers.iter().for_each(|worker| signal(*worker, Signal::SIGKILL));
        if std::thread::panicking() {
            eprintln!("--- haft wrote:\n{}\n---", self.log.so_far());
        }
    }
}

fn write_file(folder: &Path, yaml: &str) {
    fs::write(folder.join("haft.yaml"), yaml.replace("{dir}", &display(folder))).expect("a file");
}

fn display(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

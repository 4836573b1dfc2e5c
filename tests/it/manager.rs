//! haft below a service manager: what it is told (sd_notify), and the sockets that it passes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use crate::harness::{Client, Haft, Setup, eventually};

/// The manager's end: it keeps all that it was told, in order.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    /// In the folder of a test that is run with [`TOLD`].
    fn new(folder: &Path) -> Self {
        let socket = UnixDatagram::bind(folder.join("notify")).expect("a socket");
        socket.set_nonblocking(true).expect("non-blocking");
        Self { socket, told: Vec::new() }
    }

    fn take(&mut self) {
        let mut text = [0; 4096];
        while let Ok(len) = self.socket.recv(&mut text) {
            self.told.push(String::from_utf8_lossy(&text[..len]).into_owned());
        }
    }

    /// Waits for a message with this line and yields it and all before it. Later calls see what came after.
    fn wait(&mut self, line: &str) -> (String, Vec<String>) {
        eventually(line, || {
            self.take();
            let at = self.told.iter().position(|told| told.lines().any(|it| it == line))?;
            let mut before: Vec<String> = self.told.drain(..=at).collect();
            Some((before.pop()?, before))
        })
    }
}

const TOLD: [&str; 3] = ["env", "NOTIFY_SOCKET={dir}/notify", "WATCHDOG_USEC=300000"];

fn has(told: &str, line: &str) -> bool {
    told.lines().any(|it| it == line)
}

fn monotonic_usec() -> i128 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the time");
    i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1000
}

#[test]
fn the_manager_is_told_when_haft_is_ready_reloads_and_stops_and_that_its_loop_goes_round() {
    let setup = Setup::new(&["-w", "2"]).mode("gate").under(&TOLD);
    let mut manager = Manager::new(setup.folder());
    let mut haft = setup.launch();
    let (_, before) = manager.wait("EXTEND_TIMEOUT_USEC=15000000");
    assert!(!before.iter().any(|told| has(told, "READY=1")), "no worker is ready: {before:?}");
    haft.open_gate("gate-1");
    let (ready, before) = manager.wait("READY=1");
    assert!(has(&ready, &format!("MAINPID={}", haft.pid())), "{ready}");
    assert!(has(&ready, "STATUS=1 of 2 workers, generation 0"), "{ready}");
    assert!(before.iter().any(|told| has(told, "WATCHDOG=1")), "{before:?}");
    Client::asking(&haft, Ipv4Addr::LOCALHOST).receive().expect("an answer, since haft is ready");
    haft.open_gate("gate-2");
    manager.wait("STATUS=2 of 2 workers, generation 0");
    manager.wait("WATCHDOG=1");

    let began = monotonic_usec();
    haft.signal(Signal::SIGHUP);
    let (reloading, _) = manager.wait("RELOADING=1");
    let time = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("its time");
    assert!((began..=monotonic_usec()).contains(&time.parse().expect("a number")), "{reloading}");
    let (_, before) = manager.wait("EXTEND_TIMEOUT_USEC=15000000");
    assert!(!before.iter().any(|told| has(told, "READY=1")), "no new worker is ready: {before:?}");
    haft.open_gate("gate-3");
    haft.open_gate("gate-4");
    let (ready, _) = manager.wait("READY=1");
    assert!(has(&ready, "STATUS=2 of 2 workers, generation 1"), "{ready}");

    // It keeps its worker from finishing.
    let waits = Client::half_asking(&haft, Ipv4Addr::LOCALHOST);
    haft.wait("it is delivered", |status| status.delivered() == 2);
    haft.signal(Signal::SIGTERM);
    manager.wait("STOPPING=1");
    manager.wait("EXTEND_TIMEOUT_USEC=15000000");
    waits.finish();
    assert!(haft.wait_for_exit().success());
    haft.assert_nothing_left_but(&["notify"]);
}

#[test]
fn a_reload_that_is_refused_or_fails_ends_for_the_manager_too_with_the_reason_in_its_status() {
    let file = "admin: unix:{dir}/admin.sock\nlisten: 127.0.0.1:0\nworkers: 2\n";
    let setup = Setup::from_file(file).mode("sick").under(&TOLD);
    let mut manager = Manager::new(setup.folder());
    let mut haft = setup.start_all();
    manager.wait("STATUS=2 of 2 workers, generation 0");
    haft.write_file(&format!("{file}wokers: 3\n"));
    haft.signal(Signal::SIGHUP);
    manager.wait("RELOADING=1");
    let (ready, _) = manager.wait("READY=1");
    let refused = "STATUS=2 of 2 workers, generation 0; the last reload was refused (see the log)";
    assert!(has(&ready, refused), "{ready}");

    haft.write_file(file);
    haft.open_gate("sick-1");
    haft.signal(Signal::SIGHUP);
    manager.wait("RELOADING=1");
    let (ready, _) = manager.wait("READY=1");
    assert!(ready.contains("; the last reload has failed (see the log)"), "{ready}");

    haft.close_gate("sick-1");
    haft.signal(Signal::SIGHUP);
    manager.wait("RELOADING=1");
    let (ready, _) = manager.wait("READY=1");
    assert!(has(&ready, "STATUS=2 of 2 workers, generation 2"), "{ready}");
    haft.signal(Signal::SIGTERM);
    assert!(haft.wait_for_exit().success());
}

/// A file of this test, with sockets passed.
fn activated(listen: &str, sockets: &[&str]) -> Setup {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/activate.py");
    let wrapper = [&["python3", "-S", "-E", script, "{dir}"], sockets, &["--"]].concat();
    Setup::from_file(&format!("admin: unix:{{dir}}/admin.sock\nworkers: 2\n{listen}")).under(&wrapper)
}

fn port(folder: &Path, name: &str) -> SocketAddr {
    let path = folder.join(format!("{name}.port"));
    let port = eventually("the port", || fs::read_to_string(&path).ok()).parse().expect("a port");
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn passed_sockets_are_listeners_and_who_came_before_the_start_is_served() {
    let setup = activated("", &["web=tcp", "local=unix", "more=tcp"]).mode("plain");
    let folder = setup.folder().to_owned();
    let mut haft = setup.launch();
    let (web, more, local) = (port(&folder, "web"), port(&folder, "more"), folder.join("local.sock"));
    let mut early = Client::connect(web).expect("connect");
    early.send("/early").expect("send");
    haft.open_gate("gate-start");
    assert_eq!(early.receive().expect("an answer").listener, 0);
    haft.wait("all workers ready", |status| status.all_ready());
    assert_eq!(Client::connect_unix(&local).expect("connect").ask("/").expect("an answer").listener, 1);
    assert_eq!(Client::connect(more).expect("connect").ask("/").expect("an answer").listener, 2);
    let told = format!("[\"{web}\",\"unix:{}\",\"{more}\"]", local.display());
    assert_eq!(haft.status().0["listen"].to_string(), told);
    // They are still there after a reload, which reads everything again.
    haft.signal(Signal::SIGHUP);
    haft.wait("reloaded", |status| status.number("generation") == 1 && status.0["reload"]["state"] == "done");
    Client::connect(more).expect("connect").ask("/").expect("an answer");
    haft.signal(Signal::SIGTERM);
    assert!(haft.wait_for_exit().success());
    haft.assert_nothing_left_but(&["local.sock"]);
}

#[test]
fn a_passed_socket_is_named_in_the_file_beside_others() {
    let setup = activated("listen: [127.0.0.1:0, name:web]\n", &["local=unix", "web=tcp"]).mode("plain");
    let folder = setup.folder().to_owned();
    setup.open_gate("gate-start");
    let haft = setup.start_all();
    let addresses = haft.addresses(3);
    let (web, local) = (port(&folder, "web"), folder.join("local.sock"));
    assert_eq!(addresses[1..], [web.to_string(), format!("unix:{}", local.display())]);
    let own = addresses[0].parse().expect("an address");
    for (number, to) in [own, web].into_iter().enumerate() {
        assert_eq!(Client::connect(to).expect("connect").ask("/").expect("an answer").listener, number);
    }
}

#[test]
fn a_node_program_is_served_at_a_passed_socket_instead_of_the_port_that_it_asks_for() {
    let setup = activated("", &["web=tcp"]).node();
    let folder = setup.folder().to_owned();
    setup.open_gate("gate-start");
    let haft = setup.start_all();
    let mut client = Client::connect(port(&folder, "web")).expect("connect");
    client.send("/").expect("send");
    let pid: u32 = client.receive_body().expect("an answer").parse().expect("a process id");
    assert!(haft.children().contains(&pid));
    haft.stop();
}

/// Starts it; it must end with code 2 and say this.
fn refused(setup: Setup, says: &str) {
    setup.open_gate("gate-start");
    let mut haft: Haft = setup.launch();
    let status = haft.wait_for_exit();
    let log = haft.log().whole();
    assert!(status.code() == Some(2) && log.contains(says), "{status}: {log}");
}

#[test]
fn what_is_no_listener_or_cannot_be_one_is_refused_with_the_cure() {
    let unfit = "is no listening stream socket";
    refused(
        activated("", &["web=tcp", "dns=udp"]),
        &format!("descriptor 4 (dns), passed by the service manager, {unfit}"),
    );
    refused(activated("", &["one=connection"]), "use ListenStream= and Accept=no");
    refused(activated("listen: name:wep\n", &["web=tcp"]), "FileDescriptorName=wep in the .socket unit");
    refused(activated("dispatch: kernel\n", &["web=tcp"]), "a passed socket has one accept queue");
}

#[test]
fn an_abstract_socket_can_be_passed() {
    let setup = activated("", &["hidden=abstract"]).mode("plain");
    setup.open_gate("gate-start");
    let haft = setup.start_all();
    assert!(haft.addresses(1)[0].starts_with("unix:@"), "{:?}", haft.addresses(1));
    haft.stop();
}

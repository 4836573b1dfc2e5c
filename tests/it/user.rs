//! Workers as another user than haft (`--user`), and what haft itself keeps of root's rights then.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::harness::{Client, Haft, Setup, addresses_of};

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A line of `/proc/PID/status`.
fn status_line(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What `id` says of a user.
fn id(option: &str) -> String {
    let output = Command::new("id").args([option, "daemon"]).output().expect("id");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// With a folder that the user may enter.
fn as_daemon(flags: &[&str]) -> Setup {
    let setup = Setup::new(&[&["--user", "daemon"], flags].concat());
    fs::set_permissions(setup.folder(), Permissions::from_mode(0o755)).expect("mode");
    setup
}

const NONE: &str = "0000000000000000";
/// KILL, SETGID, SETUID, NET_BIND_SERVICE.
const FEW: &str = "00000000000004e0";

fn assert_has_no_rights(pid: u32) {
    let (uid, gid) = (id("-u"), id("-g"));
    assert_eq!(status_line(pid, "Uid"), [uid.as_str(); 4].join(" "));
    assert_eq!(status_line(pid, "Gid"), [gid.as_str(); 4].join(" "));
    assert_eq!(status_line(pid, "Groups"), id("-G"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status_line(pid, set), NONE, "{set}");
    }
    assert_eq!(status_line(pid, "NoNewPrivs"), "1");
}

fn assert_served_by_all(haft: &Haft) {
    for slot in 0..2 {
        let from: Ipv4Addr = addresses_of(slot, 2).next().expect("an address");
        let mut client = Client::connect_from(from, haft.address()).expect("connect");
        client.send("/").expect("send");
        client.receive_body().expect("an answer");
    }
}

#[test]
fn workers_of_every_kind_have_that_user_s_rights_alone_and_haft_keeps_few() {
    if !is_root() {
        return;
    }
    let plain = as_daemon(&["-w", "2"]);
    let node = as_daemon(&["-w", "2"]).node();
    let built_in = as_daemon(&["-w", "2"]).without_command();
    let listening = as_daemon(&["-w", "2", "--dispatch", "kernel", "--dialect", "listen-fds"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/listen_fds.py");
    let listening = listening.command(&["python3", "-S", "-E", script, "{dir}"]);
    for setup in [plain, node, built_in, listening] {
        let haft = setup.start_all();
        (0..2).for_each(|slot| assert_has_no_rights(haft.worker(slot)));
        assert_served_by_all(&haft);
        let master = haft.pid();
        assert_eq!(status_line(master, "Uid"), "0 0 0 0");
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status_line(master, set), FEW, "{set}");
        }
        let threads = fs::read_dir(format!("/proc/{master}/task")).expect("its threads");
        for thread in threads {
            let status = fs::read_to_string(thread.expect("a thread").path().join("status")).unwrap_or_default();
            assert!(status.is_empty() || status.contains(&format!("CapEff:\t{FEW}")), "{status}");
        }
        assert!(!haft.log().so_far().contains("haft runs as root"), "that is cured");
        // It can still end them.
        haft.stop();
    }
}

#[test]
fn a_worker_can_neither_signal_nor_trace_haft_nor_look_into_it() {
    if !is_root() {
        return;
    }
    let setup = as_daemon(&["-w", "1"]);
    let script = "kill -KILL $PPID 2>/dev/null && touch {dir}/killed; cat /proc/$PPID/environ >/dev/null 2>&1 && touch \
        {dir}/read; cat /proc/$PPID/maps >/dev/null 2>&1 && touch {dir}/mapped; exec python3 -S -E \"$0\" {dir} plain";
    let open = setup.folder().join("open");
    fs::create_dir(&open).expect("a folder");
    fs::set_permissions(&open, Permissions::from_mode(0o777)).expect("mode");
    let script = script.replace("{dir}", "{dir}/open");
    let worker = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/worker.py");
    let haft = setup.command(&["sh", "-c", &script, worker]).start_all();
    let left: Vec<_> = fs::read_dir(haft.folder().join("open")).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
    haft.stop();
}

#[test]
fn workers_end_with_a_killed_haft_all_the_same() {
    if !is_root() {
        return;
    }
    let mut haft = as_daemon(&["-w", "2"]).start_all();
    haft.note_workers();
    haft.signal(nix::sys::signal::Signal::SIGKILL);
    haft.wait_for_exit();
    crate::harness::eventually("the end of the workers", || {
        let status = Command::new("pgrep").args(["-u", "daemon", "-f", "tests/it/worker.py"]).output().expect("pgrep");
        let running = String::from_utf8(status.stdout).expect("text");
        let ours = haft.folder().display().to_string();
        let of_ours =
            |pid: &&str| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&ours));
        running.lines().find(of_ours).is_none().then_some(())
    });
}

#[test]
fn as_root_without_a_user_there_is_one_warning_with_the_cure() {
    if !is_root() {
        return;
    }
    let haft = Setup::new(&["-w", "1"]).start_all();
    let line = haft.log().line_with("haft runs as root, and so do its workers");
    assert!(line.contains("--user NAME"), "{line}");
    haft.stop();
}

#[test]
fn a_user_that_cannot_be_is_refused() {
    let fails = |user: &str, says: &str| {
        let mut haft = Setup::new(&["--user", user]).launch();
        let status = haft.wait_for_exit();
        let log = haft.log().whole();
        assert!(status.code() == Some(2) && log.contains(says), "{status}: {log}");
    };
    fails("nobody-of-this-name", "--user nobody-of-this-name: this host has no such user");
    fails("root", "that is root, whose rights workers are not to have");
    if is_root() {
        fails("daemon:no-group-of-this-name", "this host has no such group");
    }
}

#[test]
fn workers_get_variables_from_a_file_which_is_read_again_at_a_reload() {
    let setup = Setup::new(&["-w", "1", "--worker-env", "{dir}/env"]);
    let script = "echo \"$GREETING $HAFT_SLOT\" >>{dir}/said; exec python3 -S -E \"$0\" {dir} plain";
    let worker = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/worker.py");
    fs::write(setup.folder().join("env"), "# of the application\nGREETING='good day'\nHAFT_SLOT=9\n").expect("a file");
    let mut haft = setup.command(&["sh", "-c", script, worker]).start_all();
    fs::write(haft.folder().join("env"), "GREETING=hello\n").expect("a file");
    haft.signal(nix::sys::signal::Signal::SIGHUP);
    haft.wait("reloaded", |status| status.number("generation") == 1 && status.0["reload"]["state"] == "done");
    let said = fs::read_to_string(haft.folder().join("said")).expect("what they said");
    assert_eq!(said, "good day 0\nhello 0\n");
    fs::write(haft.folder().join("env"), "no variable\n").expect("a file");
    let (code, text) = haft.post("/reload");
    assert!(code == 400 && text.contains("env:1: write NAME=VALUE"), "{code} {text}");
    haft.stop();
}

//! What goes wrong at the start: the exit code, and a text that names the thing and the cure.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::harness::{Client, Setup};

/// A Node program that listens on the port that it is given.
const PORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/port.cjs");

/// Starts it; it must end by itself with this code, and say all of these.
fn fails(setup: Setup, code: i32, says: &[&str]) -> String {
    let mut haft = setup.launch();
    let status = haft.wait_for_exit();
    let log = haft.log().whole();
    assert_eq!(status.code(), Some(code), "{log}");
    for part in says {
        assert!(log.contains(part), "not said: {part:?}; but: {log}");
    }
    haft.assert_nothing_left();
    log
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    fails(Setup::new(&["-l", &address]), 1, &[&address, "the port is in use", "--listen", "choose another"]);
}

#[test]
fn the_port_of_the_admin_listener_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let setup = Setup::from_file(&format!("listen: 127.0.0.1:0\nadmin: {address}\n")).without_command();
    let log = fails(setup, 1, &[&format!("--admin {address}: the port is in use"), "choose another"]);
    assert!(!log.contains("--listen"), "{log}");
}

#[test]
fn the_port_of_a_node_program_in_use_ends_haft_at_its_first_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address");
    let port = address.port().to_string();
    let setup = Setup::from_file("admin: unix:{dir}/admin.sock\nworkers: 1\n").command(&["node", PORT, &port]);
    let in_use = format!("haft: error: the program cannot listen on {address}: the port is in use");
    let log = fails(setup, 1, &[&in_use, "give an address with --listen"]);
    assert_eq!(log.matches("worker exited before it was ready").count(), 1, "{log}");
}

#[test]
fn a_node_program_that_tries_another_port_goes_on() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address");
    let port = address.port().to_string();
    let setup =
        Setup::from_file("admin: unix:{dir}/admin.sock\nworkers: 2\n").command(&["node", PORT, &port, "or-another"]);
    let haft = setup.start_all();
    let mut client = Client::connect(haft.address()).expect("connect");
    client.send("/").expect("send");
    haft.log().line_with("the program wants to listen, but");
    haft.stop();
}

#[test]
fn a_script_is_named_instead_of_what_runs_it() {
    let setup = Setup::new(&[]).command(&["server.js"]);
    fails(setup, 1, &["server.js: it cannot be run by itself; name what runs it: haft -- node server.js"]);
}

#[test]
fn a_configuration_that_is_not_there() {
    let mut setup = Setup::from_file("");
    let path = setup.folder().join("haft.yaml");
    fs::remove_file(&path).expect("a file");
    setup = setup.without_command();
    let log = fails(setup, 2, &["haft.yaml: No such file or directory; check its name"]);
    assert!(!log.contains("os error"), "{log}");
}

#[test]
fn an_address_that_is_not_ours() {
    fails(Setup::new(&["-l", "192.0.2.1:0"]), 1, &["192.0.2.1", "this host has no such address"]);
}

#[test]
fn a_unix_path_that_is_stale_or_live_or_something_else() {
    let setup = Setup::new(&["-w", "1", "-l", "unix:{dir}/clients.sock"]);
    let path = setup.folder().join("clients.sock");
    drop(UnixListener::bind(&path).expect("a stale socket"));
    let haft = setup.start_all();
    Client::connect_unix(&path).expect("connect").ask("/").expect("answer");

    let unix = format!("unix:{}", path.display());
    fails(Setup::new(&["-l", &unix]), 1, &[&unix, "another process listens on this socket"]);
    Client::connect_unix(&path).expect("connect").ask("/").expect("it was left alone");
    haft.stop();

    let setup = Setup::new(&["-l", "unix:{dir}/file"]);
    let path = setup.folder().join("file");
    fs::write(&path, "precious").expect("write");
    let mut haft = setup.launch();
    assert_eq!(haft.wait_for_exit().code(), Some(1));
    haft.log().line_with("the path exists and is not a socket");
    assert_eq!(fs::read_to_string(path).expect("read"), "precious");
}

#[test]
fn a_folder_that_does_not_exist() {
    fails(Setup::new(&["-l", "unix:{dir}/no/such.sock"]), 1, &["does its folder exist"]);
}

#[test]
fn a_command_that_does_not_exist_or_may_not_be_run() {
    let missing = Setup::new(&[]).command(&["/no/such/program"]);
    fails(missing, 1, &["/no/such/program: no such program"]);
    let setup = Setup::new(&[]);
    fs::write(setup.folder().join("program"), "#!/bin/sh\n").expect("write");
    fails(setup.command(&["{dir}/program"]), 1, &["permission denied", "chmod +x"]);
}

#[test]
fn a_command_that_exits_at_once_is_tried_five_times_and_given_up_with_its_last_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let tries = folder.path().join("tries");
    let script = format!("echo tried >> {}; echo 'cannot find module x' >&2; exit 3", tries.display());
    let setup = Setup::new(&["-w", "1"]).command(&["sh", "-c", &script]);
    let log = fails(setup, 1, &["haft: error: ", "5 times", "giving up", "exit code 3", "what it wrote is above"]);
    assert_eq!(
        log.lines().filter(|line| *line == "cannot find module x").count(),
        1,
        "one failure is shown once: {log}"
    );
    assert_eq!(fs::read_to_string(tries).expect("tries").lines().count(), 5);
}

#[test]
fn a_command_that_listens_by_itself_is_not_waited_for_for_ever() {
    let setup = Setup::new(&["-w", "1", "--start-timeout", "100ms"]).command(&["sleep", "3600"]);
    fails(setup, 1, &["not ready within --start-timeout", "HAFT_CHANNEL_FD", "giving up"]);
}

#[test]
fn wrong_flags() {
    for (flags, says) in [
        (&["-w", "0"][..], "at least one worker is needed"),
        (&["-l", "example.org:80"], "names are not resolved"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["-c", "{dir}/missing.yaml"], "missing.yaml"),
    ] {
        fails(Setup::new(flags), 2, &["error:", says]);
    }
}

#[test]
fn more_workers_than_descriptors_allow() {
    let setup = Setup::new(&["-w", "1000"]).after("ulimit -n 256");
    fails(setup, 2, &["--workers 1000", "RLIMIT_NOFILE is 256", "at most 27 workers", "ulimit -n 8033"]);
}

#[test]
fn a_low_limit_on_descriptors_is_told() {
    let haft = Setup::new(&["-w", "1"]).after("ulimit -n 90").start_all();
    haft.log().line_with("RLIMIT_NOFILE is 90, but a burst can need");
    haft.stop();
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let haft = Setup::new(&["-w", "1"]).after("ulimit -S -n 100; ulimit -H -n 5000").start_all();
    assert_eq!(haft.status().number("descriptors_limit"), 5000);
    haft.stop();
}

#[test]
fn a_wrong_file_is_told_with_file_line_and_key() {
    for (yaml, says) in [
        ("workers: 2\nlisten: [3000\n", "haft.yaml:"),
        ("workers: 2\n\nno-such-key: 1\n", "haft.yaml:3: "),
        ("listen: 127.0.0.1:0\nworkers: many\n", "haft.yaml:2: "),
    ] {
        let setup = Setup::new(&["-c", "{dir}/haft.yaml"]);
        fs::write(setup.folder().join("haft.yaml"), yaml).expect("write");
        fails(setup, 2, &[says]);
    }
}

#[test]
fn a_check_finds_what_is_missing_on_this_host() {
    let check = |flags: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_haft")).arg("--check").args(flags).output().expect("haft");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let folder = tempfile::tempdir().expect("a folder");
    let variables = folder.path().join("variables");
    let named = variables.to_str().expect("a path");
    for (flags, says) in [
        (["--user", "no-such-user"], "--user no-such-user: this host has no such user"),
        (["--user", "daemon:no-such-group"], "--user no-such-group: this host has no such group"),
        (["--user", "root"], "--user root: that is root"),
        (["--worker-env", named], "variables: No such file"),
    ] {
        let (code, text) = check(&flags);
        assert!(code == Some(2) && text.contains(says), "{flags:?}: {text}");
    }
    fs::write(&variables, "NAME=value\n").expect("a file");
    assert_eq!(check(&["--user", "daemon", "--worker-env", named]), (Some(0), String::new()));
    fs::write(&variables, "NAME=value\nNAME\n").expect("a file");
    let (code, text) = check(&["--worker-env", named]);
    assert!(code == Some(2) && text.contains("variables:2: "), "{text}");
}

#[test]
fn what_check_prints_is_a_file_that_comes_to_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("haft.yaml");
    let check = |flags: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_haft")).arg("--check").args(flags).output().expect("haft");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let typed = check(&["-w", "3", "-l", "[::1]:0", "-l", "unix:/tmp/x", "--hold-timeout", "7s", "--", "node", "a b"]);
    assert!(typed.contains("workers: 3") && typed.contains("unix:/tmp/x"), "{typed}");
    fs::write(&file, &typed).expect("write");
    let again = check(&["-c", file.to_str().expect("a path")]);
    // Behind each key is where it comes from, which is the file now.
    let values = |yaml: &str| yaml.lines().map(|line| line.split(" # ").next().map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(values(&again), values(&typed));
    assert!(typed.contains("workers: 3 # --workers\n") && again.contains("haft.yaml:5\n"), "{again}");
}

#[test]
fn haft_lives_on_when_nobody_reads_what_it_writes() {
    let mut haft = Setup::new(&["-w", "2"]).unheard();
    let pid = haft.worker(0);
    crate::harness::signal(pid, nix::sys::signal::Signal::SIGKILL);
    let status = haft.wait("replaced", |status| status.all_ready() && status.of_slot(0, "respawned") == 1);
    assert_eq!(status.accepted(), 0);
    haft.stop();
}

//! The commands that ask a running haft: they find it by themselves, and their exit codes show the outcome.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::harness::{Haft, Setup, eventually, user_of_this_run};

/// A haft whose control socket is where commands look: `{dir}` stands for a user's runtime folder.
fn setup(flags: &[&str]) -> Setup {
    let keys: String = flags.iter().map(|key| format!("{key}\n")).collect();
    let setup = Setup::from_file(&format!("listen: 127.0.0.1:0\nname: api\n{keys}")).mode("plain");
    // The harness asks there.
    symlink("haft/api.sock", setup.folder().join("admin.sock")).expect("a link");
    setup.under(&["env", "-u", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR={dir}"])
}

/// Runs a command as a user whose runtime folder this is.
fn run(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haft"));
    command.args(words).env("XDG_RUNTIME_DIR", folder).env_remove("RUNTIME_DIRECTORY").output().expect("haft")
}

/// The same, for this haft; other tests' have other names.
fn ask(haft: &Haft, words: &[&str]) -> Output {
    run(haft.folder(), &[words, &["--name", "api"]].concat())
}

#[track_caller]
fn says(output: &Output, code: i32, parts: &[&str]) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8(text).expect("text");
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "not said: {part:?}; but: {text}");
    }
    text
}

#[test]
fn a_running_haft_is_found_and_shown() {
    let haft = setup(&["workers: 2"]).start_all();
    let socket = haft.folder().join("haft/api.sock");
    assert_eq!(fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o600);
    haft.log().line_with(&format!("control socket unix:{}", socket.display()));

    let text = says(&ask(&haft, &["status"]), 0, &["  api  ", "accepted 0, delivered 0, refused 0", "LAST EXIT"]);
    for slot in 0..2 {
        let (slot, pid) = (slot.to_string(), haft.worker(slot).to_string());
        let row = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        assert!(row.into_iter().any(|row| row.len() > 4 && row[0] == slot && row[2] == pid), "{text}");
    }
    let json = says(&ask(&haft, &["status", "--json"]), 0, &[]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["name"], &json["pid"]), (&"api".into(), &haft.pid().into()));
    says(&ask(&haft, &["health"]), 0, &["ready: 2 of 2 slots ready"]);
    says(&ask(&haft, &["health", "--live"]), 0, &["ok"]);
    says(&ask(&haft, &["metrics"]), 0, &["haft_connections_accepted_total 0"]);
    says(&ask(&haft, &["drain", "7"]), 1, &["there is no slot 7: they are 0 to 1"]);
    says(&ask(&haft, &["drain", "x"]), 2, &["write a slot's number"]);
    says(&run(haft.folder(), &["status", "--name", "other"]), 2, &["no haft here is called other", "api"]);
    haft.stop();
}

#[test]
fn of_several_each_is_chosen_by_its_name_also_where_two_have_the_same() {
    let haft = setup(&["workers: 1"]).start_all();
    let other = Setup::from_file("listen: 127.0.0.1:0\nname: api\nworkers: 1\n").mode("plain");
    symlink(haft.folder().join("haft/api-2.sock"), other.folder().join("admin.sock")).expect("a link");
    let folder = format!("XDG_RUNTIME_DIR={}", haft.folder().display());
    let other = other.under(&["env", "-u", "RUNTIME_DIRECTORY", &folder]).start_all();
    let (first, second) = (haft.pid().to_string(), other.pid().to_string());
    let list = says(&run(haft.folder(), &["status"]), 2, &["several run here", "--name", "CONTROL SOCKET"]);
    assert!(list.contains(&first) && list.contains(&second), "{list}");
    says(&ask(&haft, &["status"]), 2, &["several run here"]);
    says(&run(haft.folder(), &["status", "--name", "api-2"]), 0, &[&format!("pid {second}  ")]);
    let address = format!("unix:{}/haft/api.sock", haft.folder().display());
    says(&run(haft.folder(), &["status", "--admin", &address]), 0, &[&format!("pid {first}  ")]);
    other.stop();
    haft.stop();
}

#[test]
fn a_reload_is_waited_for_and_its_exit_code_tells_how_it_ended() {
    let gated = setup(&["workers: 2", "start-timeout: 1h"]).mode("gate");
    (1..=4).for_each(|worker| gated.open_gate(&format!("gate-{worker}")));
    let mut haft = gated.start_all();
    says(&ask(&haft, &["reload", "--wait"]), 0, &["has begun, 2 slots", "all new clients are served by generation 1"]);
    assert_eq!(haft.status().of_each("generation"), [1, 1]);
    says(&ask(&haft, &["reload"]), 0, &["reload to generation 2 has begun"]);
    says(&ask(&haft, &["reload"]), 1, &["a reload is under way: wait for its end"]);
    // The new worker waits for its gate, and dies there.
    let newcomer = eventually("the newcomer", || {
        let serving: Vec<u32> = (0..2).map(|slot| haft.worker(slot)).collect();
        let status = haft.status();
        let leaving: Vec<u64> = status.0["draining"].as_array()?.iter().filter_map(|it| it["pid"].as_u64()).collect();
        haft.children().into_iter().find(|pid| !serving.contains(pid) && !leaving.contains(&u64::from(*pid)))
    });
    haft.note_workers();
    crate::harness::signal(newcomer, Signal::SIGKILL);
    haft.wait("it has failed", |status| status.0["reload"]["state"] == "failed");
    haft.write_file("listen: 127.0.0.1:0\nname: api\nworkers: 2\nstart-timeout: 1ms\n");
    says(&ask(&haft, &["reload", "--wait"]), 1, &["reload to generation 3 has failed", "did not become ready"]);
    haft.stop();
}

#[test]
fn slots_are_scaled_drained_and_restarted() {
    let haft = setup(&["workers: 1"]).start_all();
    says(&ask(&haft, &["scale", "2", "--wait"]), 0, &["from 1 to 2 workers"]);
    let before = haft.status().of_each("worker");
    assert!(haft.status().all_ready() && before.len() == 2, "it was waited for");
    says(&ask(&haft, &["drain", "0"]), 0, &["slot 0 is drained"]);
    says(&ask(&haft, &["status"]), 0, &["ready, drained"]);
    says(&ask(&haft, &["drain", "1"]), 1, &["slot 1 is the last that takes clients"]);
    says(&ask(&haft, &["undrain", "0"]), 0, &["slot 0 takes its clients again"]);
    says(&ask(&haft, &["restart", "1", "--wait"]), 0, &["slot 1 gets a new worker"]);
    let one = haft.status().of_each("worker");
    assert!(one[0] == before[0] && one[1] > before[1], "{before:?} {one:?}");
    says(&ask(&haft, &["restart", "all", "--wait"]), 0, &["2 slots get new workers"]);
    let all = haft.status();
    assert!(all.of_each("worker").iter().zip(&one).all(|(new, old)| new > old), "{all:?}");
    assert_eq!((all.number("generation"), all.of_each("respawned")), (0, vec![0, 0]), "no reload, and no death");
    haft.stop();
}

#[test]
fn what_workers_wrote_is_shown_of_all_or_of_one() {
    let haft = setup(&["workers: 2"]).mode("shouting").start_all();
    eventually("both have written", || {
        let text = says(&ask(&haft, &["logs", "--lines", "1000"]), 0, &[]);
        (text.contains("\n[w1] quiet line ") && text.contains("[w0] xxx")).then_some(())
    });
    let one = says(&ask(&haft, &["logs", "1", "--lines", "3"]), 0, &[]);
    assert!(one.lines().count() == 3 && one.lines().all(|line| line.starts_with("quiet line ")), "{one}");
    haft.stop();
}

#[test]
fn stop_waits_for_the_end_and_leaves_nothing() {
    let mut haft = setup(&["workers: 2"]).start_all();
    haft.note_workers();
    says(&ask(&haft, &["stop"]), 0, &[]);
    assert!(haft.wait_for_exit().success());
    assert!(!haft.folder().join("haft/api.sock").exists());
    haft.assert_nothing_left();
    says(&ask(&haft, &["health"]), 1, &["haft: no haft"]);
}

#[test]
fn what_a_killed_master_leaves_is_not_taken_for_one_and_gives_way_to_the_next() {
    let haft = setup(&["workers: 1", "drain-timeout: 1s"]).start_all();
    haft.signal(Signal::SIGKILL);
    let folder = haft.end_and_keep_folder();
    assert!(folder.path().join("haft/api.sock").exists());
    says(&run(folder.path(), &["health", "--name", "api"]), 1, &["haft: no haft"]);
    let next = Setup::from_file("listen: 127.0.0.1:0\nname: api\nworkers: 1\n").mode("plain");
    symlink(folder.path().join("haft/api.sock"), next.folder().join("admin.sock")).expect("a link");
    let place = format!("XDG_RUNTIME_DIR={}", folder.path().display());
    let next = next.under(&["env", "-u", "RUNTIME_DIRECTORY", &place]).start_all();
    says(&run(folder.path(), &["health", "--name", "api"]), 0, &["ready"]);
    next.stop();
}

#[test]
fn a_service_s_folder_comes_first_and_off_is_none() {
    let service = Setup::from_file("listen: 127.0.0.1:0\nworkers: 1\n").mode("plain");
    symlink("haft.sock", service.folder().join("admin.sock")).expect("a link");
    let service = service.under(&["env", "RUNTIME_DIRECTORY={dir}", "XDG_RUNTIME_DIR={dir}"]).start_all();
    assert!(!service.folder().join("haft").exists());
    service.stop();

    let off = Setup::from_file("listen: 127.0.0.1:0\nworkers: 1\nadmin: off\n").mode("plain");
    let off = off.under(&["env", "-u", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR={dir}"]).start_unasked(1);
    assert!(!off.log().so_far().contains("control socket") && !off.folder().join("haft").exists());
    off.stop();
}

#[test]
fn without_a_folder_for_its_socket_haft_serves_and_says_so() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // Root's folder in this user's place, and none that this user may write to elsewhere.
    let user = user_of_this_run();
    let folder = Path::new("/tmp").join(format!("haft-{user}"));
    fs::create_dir_all(&folder).expect("a folder");
    let setup = Setup::from_file("listen: 127.0.0.1:0\nworkers: 1\n").mode("plain").user(user);
    let haft = setup.under(&["env", "-u", "RUNTIME_DIRECTORY", "-u", "XDG_RUNTIME_DIR"]).start_unasked(1);
    haft.log().line_with("there is no folder for a control socket");
    haft.stop();
    fs::remove_dir(folder).expect("it is empty");
}

//! What workers have started and left: haft takes its end, mistakes it for no worker, and lets it outlive nobody.

use std::fs;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::harness::{Haft, Setup, children, end_worker, eventually, is_running};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/worker.py");
/// Each worker leaves 25 processes, which end a moment later, and becomes the worker.
const LEAVES_MANY: &str = "for n in $(seq 25); do (sh -c \"sleep 0.1; echo >> $1/ended\" &); done; \
    exec python3 -S -E \"$0\" \"$@\"";
/// Each worker leaves one in its process group that minds no SIGTERM, and one that does.
const LEAVES_TWO: &str = "(trap '' TERM; exec sleep 10000) & echo $! > $1/stubborn-$HAFT_WORKER; \
    sleep 10000 & echo $! > $1/obedient-$HAFT_WORKER; exec python3 -S -E \"$0\" \"$@\"";

fn setup(script: &str, flags: &[&str]) -> Setup {
    Setup::new(&[&["-w", "2"], flags].concat()).command(&["sh", "-c", script, WORKER, "{dir}", "fated"])
}

/// `pid`: the master's own.
fn takes_their_ends(mut haft: Haft, pid: u32) {
    let ended = haft.folder().join("ended");
    eventually("they have ended", || fs::read(&ended).ok().filter(|lines| lines.len() >= 50));
    eventually("only workers are left", || (children(pid).len() == 2).then_some(()));
    for deaths in 1..4 {
        end_worker(&mut haft, "/exit/7", deaths);
    }
    assert_eq!(haft.status().0["slots"][0]["deaths_by_reason"], serde_json::json!({"exit code 7": 3}));
    assert_eq!(haft.status().of_slot(1, "respawned"), 0);
    eventually("only workers are left", || (children(pid).len() == 2).then_some(()));
    haft.stop();
}

#[test]
fn orphans_leave_no_zombies_and_workers_keep_their_exit_codes() {
    let haft = setup(LEAVES_MANY, &[]).start_all();
    let pid = haft.pid();
    takes_their_ends(haft, pid);
}

#[test]
fn as_process_1_too() {
    if !Uid::effective().is_root() {
        eprintln!("not tried: only root may make a namespace of processes");
        return;
    }
    let launcher = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/process1.py");
    let haft = setup(LEAVES_MANY, &[]).under(&["python3", "-S", "-E", launcher]).start_all();
    let master = children(haft.pid())[0];
    haft.log().line_with("haft is process 1 and --drain-timeout is 25s, but container engines kill 10s after SIGTERM");
    takes_their_ends(haft, master);
}

#[test]
fn what_a_dead_worker_leaves_behind_is_ended_with_it_and_does_not_outlive_haft() {
    let mut haft = setup(LEAVES_TWO, &["--drain-timeout", "1s"]).start_all();
    let left = |who: &str| -> u32 {
        let text = fs::read_to_string(haft.folder().join(who)).expect(who);
        text.trim().parse().expect("a number")
    };
    let (stubborn, obedient) = (left("stubborn-1"), left("obedient-1"));
    let others = [left("stubborn-2"), left("obedient-2")];
    end_worker(&mut haft, "/signal/SIGKILL", 1);
    eventually("it is told to end", || (!is_running(obedient)).then_some(()));
    eventually("or killed when its time is over", || (!is_running(stubborn)).then_some(()));
    assert!(others.iter().all(|pid| is_running(*pid)), "the other worker's stay");
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    assert!(haft.wait_for_exit().success());
    assert!(others.iter().all(|pid| !is_running(*pid)), "nothing outlives haft");
    haft.assert_nothing_left();
}

//! Flags from the environment: haft heeds them, and no worker sees them.

use std::fs;

use crate::harness::{Setup, eventually};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/worker.py");
const LISTEN_FDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/listen_fds.py");
/// Writes its environment, then becomes the worker.
const SHOWS: &str = "env >{dir}/env.new && mv {dir}/env.new {dir}/env; exec python3 -S -E \"$0\" \"$@\"";
const SAID: [&str; 5] = ["env", "HAFT_FLAG_BACKLOG=77", "HAFT_FLAG_PREFIX_OUTPUT=true", "WEB_CONCURRENCY=1", "PORT=1"];

fn seen_by_the_worker(setup: Setup, say: &str) -> String {
    let haft = setup.under(&SAID).start_all();
    assert_eq!(haft.status().0["slots"].as_array().map(Vec::len), Some(1), "WEB_CONCURRENCY says how many");
    let seen = eventually("the worker's environment", || fs::read_to_string(haft.folder().join("env")).ok());
    assert!(seen.contains(say), "{seen}");
    haft.stop();
    seen
}

#[test]
fn haft_has_its_flags_from_there_and_the_worker_only_what_is_its_own() {
    let setup = Setup::new(&[]).command(&["sh", "-c", SHOWS, WORKER, "{dir}", "plain"]);
    let seen = seen_by_the_worker(setup, "HAFT_WORKERS=1");
    assert!(!seen.contains("HAFT_FLAG_"), "{seen}");
    for kept in ["WEB_CONCURRENCY=1", "PORT=1"] {
        assert!(seen.lines().any(|line| line == kept), "{kept}: {seen}");
    }
}

#[test]
fn so_it_is_for_a_program_that_takes_a_listener_over() {
    let setup = Setup::new(&["--dispatch", "kernel", "--dialect", "listen-fds"]);
    let seen = seen_by_the_worker(setup.command(&["sh", "-c", SHOWS, LISTEN_FDS, "{dir}"]), "LISTEN_FDS=1");
    assert!(!seen.contains("HAFT_FLAG_"), "{seen}");
}

//! What workers report of themselves, and what haft adds from /proc: in `/status` and `/metrics`.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Client, Setup, Status, eventually, signal};

/// A Node program that can be made to block its event loop, or to die of an error.
const SERVER: &str = "
const http = require('node:http');
http.createServer((request, response) => {
  const until = Date.now() + 400;
  if (request.url === '/block') while (Date.now() < until);
  if (request.url === '/die') setImmediate(() => { throw new Error('as asked'); });
  response.end('answered');
}).listen(0);
";

fn reported(status: &Status, slot: usize, name: &str) -> Option<u64> {
    status.0["slots"][slot]["reported"][name].as_u64()
}

fn get(client: &mut Client, path: &str) -> String {
    client.send(path).expect("send");
    client.receive_body().expect("an answer")
}

fn node(flags: &[&str], command: &[&str]) -> crate::harness::Haft {
    let setup = Setup::new(flags);
    fs::write(setup.folder().join("server.cjs"), SERVER).expect("a file");
    fs::write(setup.folder().join("package.json"), r#"{"scripts":{"start":"sh -c 'node server.cjs; true'"}}"#)
        .expect("a file");
    setup.command(command).start_all()
}

#[test]
fn an_unmodified_node_program_tells_of_its_loop_its_heap_and_its_connections() {
    let mut haft = node(&["-w", "1"], &["node", "{dir}/server.cjs"]);
    let status = haft.wait("its figures", |status| reported(status, 0, "heap_used").is_some());
    assert!(reported(&status, 0, "heap_limit") > reported(&status, 0, "heap_used"), "{status:?}");
    assert_eq!((reported(&status, 0, "open_connections"), reported(&status, 0, "uncaught_errors")), (Some(0), Some(0)));
    assert_eq!(reported(&status, 0, "sessions_opened"), None, "there is no Socket.IO");
    let process = &status.0["slots"][0]["process"];
    assert!(process["resident_bytes"].as_u64() > Some(1 << 20) && process["threads"].as_u64() > Some(1), "{process}");

    let mut client = Client::connect(haft.address()).expect("connect");
    get(&mut client, "/");
    haft.wait("one connection", |status| reported(status, 0, "open_connections") == Some(1));
    let late = |status: &Status| reported(status, 0, "loop_delay_max") > Some(200_000_000);
    eventually("the blocked loop is seen", || {
        get(&mut client, "/block");
        late(&haft.status()).then_some(())
    });
    let page = haft.page("/metrics").expect("the metrics").1;
    for metric in ["haft_worker_heap_bytes", "haft_worker_resident_bytes", "haft_worker_cpu_seconds_total"] {
        assert!(page.contains(&format!("{metric}{{slot=\"0\"}} ")), "{metric}");
    }
    assert!(page.contains("haft_worker_event_loop_delay_seconds{slot=\"0\",stat=\"p99\"} "), "{page}");
    haft.stop();
}

#[test]
fn what_a_worker_died_of_is_counted_and_goes_on_with_the_next() {
    let mut haft = node(&["-w", "1", "--drain-timeout", "1s"], &["node", "{dir}/server.cjs"]);
    for deaths in 1..=2 {
        get(&mut Client::connect(haft.address()).expect("connect"), "/die");
        let errors = |status: &Status| reported(status, 0, "uncaught_errors");
        haft.wait("counted", |status| errors(status) == Some(deaths) && status.all_ready());
    }
    haft.stop();
}

/// npm, a shell and the program: the page passes through all of them, and the program's process is what is measured.
#[test]
fn the_page_passes_through_wrappers() {
    let mut haft = node(&["-w", "1"], &["npm", "start", "--silent", "--prefix", "{dir}"]);
    let status = haft.wait("its figures", |status| reported(status, 0, "heap_used").is_some());
    assert!(status.0["slots"][0]["process"]["resident_bytes"].is_u64());
    haft.stop();
}

#[test]
fn without_the_preload_there_is_what_proc_tells() {
    let haft = node(&["-w", "1", "--no-preload"], &["node", "{dir}/server.cjs"]);
    let status = haft.status();
    assert!(status.0["slots"][0]["reported"].is_null() && status.0["slots"][0]["process"]["cpu_seconds"].is_f64());
    haft.stop();
}

#[test]
fn the_built_in_worker_counts_its_bytes_and_refusals_and_its_counters_outlive_it() {
    let mut haft = Setup::new(&["-w", "1"]).without_command().start_all();
    let mut client = Client::connect(haft.address()).expect("connect");
    let refusal = get(&mut client, "/socket.io/?EIO=4&transport=polling&sid=nobody");
    assert!(refusal.contains("Session ID unknown"), "{refusal}");
    let all = |status: &Status| {
        reported(status, 0, "refused_session") == Some(1)
            && reported(status, 0, "connections") >= Some(1)
            && reported(status, 0, "bytes_in") > Some(50)
            && reported(status, 0, "bytes_out") > Some(50)
    };
    let before = haft.wait("all figures", all);
    assert_eq!(reported(&before, 0, "polling_sessions"), Some(0));
    signal(haft.worker(0), Signal::SIGKILL);
    let after = haft.wait("replaced", |status| status.all_ready() && status.of_slot(0, "respawned") == 1);
    assert!(all(&after), "{after:?}");
    let page = haft.page("/metrics").expect("the metrics").1;
    assert!(page.contains("haft_worker_requests_refused_total{slot=\"0\",reason=\"session\"} 1"), "{page}");
    haft.stop();
}

/// A program in another language, written from docs/scoreboard.md.
#[test]
fn a_worker_may_write_anything_and_is_read_as_one_that_may() {
    let mut haft = Setup::new(&["-w", "2"]).mode("scoreboard").start_all();
    let status =
        haft.wait("its figures", |status| (0..2).all(|slot| reported(status, slot, "open_connections").is_some()));
    assert_eq!((reported(&status, 0, "open_connections"), reported(&status, 0, "upgrades")), (Some(40), None));
    let shown: &Value = &status.0["slots"][1]["reported"];
    assert_eq!(shown["open_connections"].as_u64(), Some(41), "{shown}");
    haft.stop();
}

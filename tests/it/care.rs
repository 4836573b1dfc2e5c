//! Workers that are replaced though they serve, because they are too large or too old, and slots whose workers end too
//! often.

use std::fs;

use crate::harness::{Client, Haft, Setup, Status, addresses_of, end_worker};
use crate::listen_fds;

/// A Node program that takes so much memory as it is asked for, and keeps it.
const GREEDY: &str = "
const http = require('node:http');
const taken = [];
http.createServer((request, response) => {
  const mebibytes = Number(request.url.slice(1));
  if (mebibytes > 0) taken.push(Buffer.alloc(mebibytes << 20, 1));
  response.end(String(process.pid));
}).listen(0);
";

/// One that takes its connections by message.
const BY_MESSAGE: &str = "
const server = require('node:http').createServer((_, response) => response.end(String(process.pid)));
process.on('message', (message, socket) => {
  if (message === 'sticky-session:connection') {
    server.emit('connection', socket);
    socket.resume();
  }
});
";

fn replaced(status: &Status, slot: usize, why: &str) -> u64 {
    status.0["slots"][slot]["replaced"][why].as_u64().expect("a count")
}

fn program(flags: &[&str], program: &str, command: &[&str]) -> Setup {
    let setup = Setup::new(flags);
    fs::write(setup.folder().join("server.cjs"), program).expect("a file");
    fs::write(setup.folder().join("package.json"), r#"{"scripts":{"start":"sh -c 'node server.cjs; true'"}}"#)
        .expect("a file");
    setup.command(command)
}

fn get(client: &mut Client, path: &str) -> String {
    client.send(path).expect("send");
    client.receive_body().expect("an answer")
}

/// The first worker of slot 0 takes 400 MiB; none of the clients of this haft notice.
fn is_replaced_for_its_size(mut haft: Haft) {
    let before = haft.status().of_each("worker");
    let from = addresses_of(0, 2).next().expect("an address");
    let greedy = get(&mut Client::connect_from(from, haft.address()).expect("connect"), "/400");
    let status = haft.wait("it is replaced", |status| {
        assert!((0..2).all(|slot| status.state(slot) == "ready"), "no slot is without a worker: {status:?}");
        replaced(status, 0, "memory") == 1
    });
    let line = haft.log().line_with("MiB of resident memory after");
    assert!(
        line.contains("slot=0") && line.contains("and may have 300M (--max-memory): the slot gets a new one"),
        "{line}"
    );
    let after = status.of_each("worker");
    assert!(after[0] > before[0] && after[1] == before[1], "{before:?} {after:?}");
    assert_ne!(get(&mut Client::connect_from(from, haft.address()).expect("connect"), "/"), greedy);
    assert_eq!((status.of_each("respawned"), status.refused_in_all()), (vec![0, 0], 0));
    let (_, metrics) = haft.page("/metrics").expect("metrics");
    for line in
        ["{slot=\"0\",reason=\"memory\"} 1", "{slot=\"1\",reason=\"memory\"} 0", "{slot=\"0\",reason=\"ended\"} 0"]
    {
        assert!(metrics.contains(&format!("haft_worker_replacements_total{line}")), "{line}: {metrics}");
    }
    haft.wait("the old one has left", |status| status.0["draining"].as_array().is_some_and(Vec::is_empty));
    haft.stop();
}

#[test]
fn a_node_program_that_takes_too_much_memory_is_replaced() {
    let flags = ["-w", "2", "--max-memory", "300M", "--drain-timeout", "2s"];
    is_replaced_for_its_size(program(&flags, GREEDY, &["node", "{dir}/server.cjs"]).start_all());
}

/// npm, a shell and the program: it is the program that is weighed, with the preload and without.
#[test]
fn so_is_one_behind_a_wrapper() {
    let flags = ["-w", "2", "--max-memory", "300M", "--drain-timeout", "2s", "--no-preload"];
    is_replaced_for_its_size(program(&flags, GREEDY, &["sh", "-c", "node {dir}/server.cjs; true"]).start_all());
    let npm = ["npm", "start", "--silent", "--prefix", "{dir}"];
    is_replaced_for_its_size(program(&flags[..6], GREEDY, &npm).start_all());
}

#[test]
fn workers_of_every_kind_are_replaced_at_their_age_one_slot_after_another() {
    let flags = ["-w", "3", "--max-age", "1s", "--drain-timeout", "1s"];
    let with = |more: &[&'static str]| [&flags[..], more].concat();
    let kinds: Vec<(&str, Setup)> = vec![
        ("haft's protocol", Setup::new(&flags)),
        ("built in", Setup::new(&flags).without_command()),
        ("Node", Setup::new(&flags).node()),
        ("Node, kernel", Setup::new(&with(&["--dispatch", "kernel"])).node()),
        ("haft's protocol, kernel", Setup::new(&with(&["--dispatch", "kernel"]))),
        ("listen-fds", listen_fds::setup(&flags, &[])),
        ("by message", program(&with(&["--node-style", "sticky-session"]), BY_MESSAGE, &["node", "{dir}/server.cjs"])),
    ];
    for (kind, setup) in kinds {
        let mut haft = setup.start_all();
        let status = haft.wait(kind, |status| {
            let serving = (0..3).filter(|slot| status.state(*slot) == "ready").count();
            assert_eq!(serving, 3, "{kind}: none is without a worker");
            (0..3).all(|slot| replaced(status, slot, "age") >= 1)
        });
        assert_eq!((status.of_each("respawned"), status.refused_in_all()), (vec![0; 3], 0), "{kind}");
        haft.log().line_with("as long as it may (--max-age): the slot gets a new one");
        haft.stop();
    }
}

#[test]
fn a_slot_whose_workers_end_too_often_is_kept_out_until_it_is_restarted() {
    let flags = ["-w", "2", "--max-restarts", "2/1h"];
    let mut haft = Setup::new(&flags).mode("fated").start_all();
    end_worker(&mut haft, "/exit/7", 1);
    end_worker(&mut haft, "/exit/7", 2);
    let from = addresses_of(0, 2).next().expect("an address");
    let mut client = Client::connect_from(from, haft.address()).expect("connect");
    client.send("/exit/7").expect("send");
    client.wait_for_end().ok();
    let status = haft.wait("it is kept out", |status| status.is(0, "kept_out") && status.state(0) == "gone");
    assert_eq!(replaced(&status, 0, "ended"), 2);
    let line = haft.log().line_with("the workers of slot 0 ended more than 2 times within 1h");
    assert!(line.contains("with exit code 7: it gets no worker until it is restarted (haft restart 0)"), "{line}");
    let served = Client::connect_from(from, haft.address()).expect("connect").ask("/").expect("an answer");
    assert_eq!(served.slot, 1, "its clients go to other slots");
    let (code, text) = haft.post("/drain?slot=1");
    assert!(code == 400 && text.contains("is the last that takes clients"), "{code} {text}");
    assert_eq!(
        haft.page("/metrics").expect("metrics").1.lines().find(|it| it.starts_with("haft_slot_kept_out{")),
        Some("haft_slot_kept_out{slot=\"0\"} 1")
    );

    let (code, text) = haft.post("/restart?slot=0");
    assert_eq!(code, 202, "{text}");
    haft.wait("it has a worker again", |status| status.all_ready() && !status.is(0, "kept_out"));
    let served = Client::connect_from(from, haft.address()).expect("connect").ask("/").expect("an answer");
    assert_eq!(served.slot, 0);
    haft.stop();
}

#[test]
fn haft_stops_in_an_orderly_way_where_that_is_wanted() {
    let flags = ["-w", "2", "--max-restarts", "1/1h", "--give-up", "exit", "--drain-timeout", "3s"];
    let mut haft = Setup::new(&flags).mode("fated").start_all();
    end_worker(&mut haft, "/exit/7", 1);
    let mut other =
        Client::connect_from(addresses_of(1, 2).next().expect("an address"), haft.address()).expect("connect");
    assert_eq!(other.ask("/").expect("an answer").slot, 1);
    let from = addresses_of(0, 2).next().expect("an address");
    Client::connect_from(from, haft.address()).expect("connect").send("/exit/7").expect("send");
    haft.log().line_with("--max-restarts: accepting stops, the workers finish within 3s");
    assert_eq!(haft.wait_for_exit().code(), Some(1));
    let line = haft.log().line_with("haft: error: ");
    assert!(line.contains("the workers of slot 0 ended more than 1 times within 1h (--max-restarts), the last one with exit code 7: haft has stopped (--give-up exit)"), "{line}");
    haft.assert_nothing_left();
}

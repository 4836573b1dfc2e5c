//! Workers that are asked whether they answer, also those that no client comes to.

use std::fs;
use std::path::Path;

use crate::harness::{Client, Haft, Setup, Status, addresses_of};

/// A Node program whose answer to /healthz a file decides: 503, or none at all.
const PATIENT: &str = "
const fs = require('node:fs');
const is = (what) => fs.existsSync(`${process.argv[2]}/${what}-${process.env.NODE_APP_INSTANCE}`);
const server = require('node:http').createServer((request, response) => {
  if (request.url === '/healthz') {
    if (is('mute')) return;
    if (is('sick')) response.statusCode = 503;
    const seen = `${process.argv[2]}/seen`, part = `${seen}-${process.env.NODE_APP_INSTANCE}`;
    fs.writeFileSync(part, `${request.socket.remoteAddress} ${request.headers['user-agent']}`);
    fs.renameSync(part, seen);
  }
  response.end(process.env.NODE_APP_INSTANCE);
});
server.listen(0);
process.on('message', (message, socket) => {
  if (message === 'sticky-session:connection') {
    server.emit('connection', socket);
    socket.resume();
  }
});
";

/// Without a certificate it speaks no more than the beginning of TLS.
const SECRET: &str = "require('node:https').createServer({}, () => {}).listen(0);";

/// A worker is never slow in the eyes of the test, however busy the machine is.
const FLAGS: [&str; 10] = [
    "-w",
    "2",
    "--health-check",
    "/healthz",
    "--health-interval",
    "1s",
    "--health-timeout",
    "20s",
    "--hold-timeout",
    "30s",
];

fn setup(flags: &[&str], more: &[&str]) -> Setup {
    let setup = Setup::new(&[flags, more].concat());
    fs::write(setup.folder().join("server.cjs"), PATIENT).expect("a file");
    setup.command(&["node", "{dir}/server.cjs", "{dir}"])
}

fn checks(status: &Status, slot: usize, outcome: &str) -> u64 {
    status.0["slots"][slot]["health_checks"][outcome].as_u64().expect("a count")
}

/// The slot that serves a client of slot 0.
fn serves(haft: &Haft) -> String {
    let from = addresses_of(0, 2).next().expect("an address");
    let mut client = Client::connect_from(from, haft.address()).expect("connect");
    client.send("/").expect("send");
    client.receive_body().expect("an answer")
}

fn touch(folder: &Path, name: &str) {
    fs::write(folder.join(name), "").expect("a file");
}

#[test]
fn one_that_answers_with_an_error_is_passed_over_until_it_answers_well() {
    for more in [&[][..], &["--dispatch", "kernel"], &["--node-style", "classic"]] {
        let setup = setup(&FLAGS, more);
        let mut haft = setup.start_all();
        haft.wait("both pass", |status| (0..2).all(|slot| checks(status, slot, "passed") >= 2));
        assert_eq!(serves(&haft), "0");
        let seen = fs::read_to_string(haft.folder().join("seen")).expect("it was asked");
        assert!(seen.ends_with("(health check)") && seen.contains("127.0.0.1 haft/"), "{seen}");

        touch(haft.folder(), "sick-0");
        haft.wait("it is passed over", |status| status.is(0, "hung") && checks(status, 0, "failed") >= 2);
        let line = haft.log().line_with("the worker fails its health check: status 503; new clients go to other slots");
        assert!(line.contains("slot=0"), "{line}");
        assert_eq!(serves(&haft), "1", "{more:?}");

        touch(haft.folder(), "sick-1");
        haft.wait("none passes", |status| (0..2).all(|slot| status.is(slot, "hung")));
        assert_eq!(serves(&haft), "0", "clients are served all the same: {more:?}");

        for slot in 0..2 {
            haft.close_gate(&format!("sick-{slot}"));
        }
        let status = haft.wait("both are taken back", |status| (0..2).all(|slot| !status.is(slot, "hung")));
        haft.log().lines_with("the worker passes its health check again", 2);
        assert_eq!(haft.log().so_far().matches("fails its health check").count(), 2, "each time it changes");
        assert_eq!((status.of_each("respawned"), status.refused_in_all()), (vec![0, 0], 0));
        assert!(status.0["routing"]["routed"]["health_check"].as_u64() > Some(4), "{status:?}");
        let (_, metrics) = haft.page("/metrics").expect("metrics");
        assert!(metrics.contains("haft_health_checks_total{slot=\"0\",outcome=\"failed\"} "), "{metrics}");
        haft.stop();
    }
}

#[test]
fn one_that_does_not_answer_is_killed_where_that_is_wanted() {
    let words = "-w 2 --health-check /healthz --health-interval 1s --health-timeout 1s --hang-timeout 0";
    let flags: Vec<&str> = words.split(' ').collect();
    let setup = setup(&flags, &["--hang-kill"]);
    touch(setup.folder(), "mute-0");
    let mut haft = setup.start_all();
    // No client ever comes to it.
    let replaced = |status: &Status| status.0["slots"][0]["replaced"]["hung"].as_u64() >= Some(1);
    haft.wait("it is killed and replaced", replaced);
    haft.log().line_with("fails its health check: no answer within 1s; it is killed and replaced");
    haft.close_gate("mute-0");
    let before = haft.status();
    haft.wait("the next one passes", |status| {
        status.all_ready() && checks(status, 0, "passed") > checks(&before, 0, "passed") + 1
    });
    haft.stop();
}

#[test]
fn workers_of_every_kind_are_asked_and_those_that_speak_tls_pass_by_any_word_of_it() {
    let secret = Setup::new(&FLAGS);
    fs::write(secret.folder().join("server.cjs"), SECRET).expect("a file");
    for (kind, setup) in [
        ("built in", Setup::new(&FLAGS).without_command()),
        ("haft's protocol", Setup::new(&FLAGS)),
        ("haft's protocol, kernel", Setup::new(&[&FLAGS[..], &["--dispatch", "kernel"]].concat())),
        ("TLS", secret.command(&["node", "{dir}/server.cjs"])),
    ] {
        let mut haft = setup.start_all();
        let status = haft.wait(kind, |status| (0..2).all(|slot| checks(status, slot, "passed") >= 2));
        assert_eq!((checks(&status, 0, "failed"), checks(&status, 1, "failed")), (0, 0), "{kind}");
        haft.stop();
    }
}

//! The workers of each server.

use std::path::PathBuf;

use super::{read, tcp};
use crate::ids::WorkerId;
use crate::node::wire::message::WorkerMessage;
use crate::node::wire::{
    AddressType, Decision, Left, ListenOutcome, ListenReply, Own, Query, Serialization, ServerId, Servers, SharedKind,
    Sockname, Spec,
};
use crate::route::Slot;

mod sharing;

const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);
const C: WorkerId = WorkerId(3);

fn at(address: &'static str, address_type: AddressType, port: i64) -> Query<'static> {
    Query { address: Some(address.into()), address_type, port: Some(port), ..tcp(0) }
}

fn name(text: &str) -> Sockname {
    Sockname::Ip(text.parse().expect("address"))
}

fn servers() -> Servers {
    Servers::new(Own::default(), PathBuf::from("/home/app"))
}

/// With these listeners of `--listen`, and the ports that they name.
fn listening(own: &[(&str, Option<u16>)]) -> Servers {
    let own = own.iter().map(|(addr, server_port)| (name(addr), *server_port));
    Servers::new(Own::new(own).0, "/".into())
}

/// Opens what a worker asks for, as if it always could be.
fn get(servers: &mut Servers, worker: WorkerId, query: &Query<'_>) -> ServerId {
    match servers.ask(worker, query) {
        Decision::Join(server) => server,
        Decision::Open(_) => servers.opened(worker, query, Ok(Some(name("[::]:7")))).expect("opened"),
        other => panic!("{other:?}"),
    }
}

fn errno(servers: &mut Servers, worker: WorkerId, query: &Query<'_>) -> i32 {
    match servers.ask(worker, query) {
        Decision::Refuse(refusal) => {
            assert_eq!(refusal.answer().outcome, ListenOutcome::Failed { errno: refusal.errno });
            refusal.errno
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_query_is_what_node_would_open() {
    let stream = |addr: &str| Spec::Stream {
        addr: addr.parse().expect("address"),
        backlog: None,
        readable_all: false,
        writable_all: false,
    };
    let udp =
        |addr: &str, ipv6_only, reuse_addr| Spec::Udp { addr: addr.parse().expect("address"), ipv6_only, reuse_addr };
    use AddressType::{Tcp4, Tcp6, Udp4, Udp6, Unix};
    for (query, spec) in [
        (tcp(3000), stream(":3000")),
        (Query { flags: 1, ..tcp(3000) }, stream("[::]:3000")),
        (at("::", Tcp6, 3000), stream(":3000")),
        (Query { flags: 1, ..at("::", Tcp6, 3000) }, stream("[::]:3000")),
        (at("0.0.0.0", Tcp4, 3000), stream("0.0.0.0:3000")),
        (at("127.0.0.1", Tcp4, 0), stream("127.0.0.1:0")),
        (at("::1", Tcp6, 65535), stream("[::1]:65535")),
        (at("::ffff:127.0.0.1", Tcp6, 1), stream("127.0.0.1:1")),
        (at("/run/app/u.sock", Unix, -1), stream("unix:/run/app/u.sock")),
        (at("0.0.0.0", Udp4, 3458), udp("0.0.0.0:3458", false, false)),
        (Query { flags: 5, ..at("::", Udp6, 0) }, udp("[::]:0", true, true)),
        (Query { address: None, ..at("", Udp6, 9) }, udp("[::]:9", false, false)),
    ] {
        assert_eq!(servers().ask(A, &query), Decision::Open(spec), "{query:?}");
    }
    let query = Query { backlog: Some(5), writable_all: true, ..at("/a", Unix, -1) };
    let Decision::Open(Spec::Stream { backlog, readable_all, writable_all, .. }) = servers().ask(A, &query) else {
        panic!("a stream")
    };
    assert_eq!((backlog, readable_all, writable_all), (Some(5), false, true));
}

#[test]
fn a_long_unix_path_is_written_from_the_working_directory() {
    let long: &'static str = String::leak(format!("/home/app/{}", "s".repeat(100)));
    let Decision::Open(Spec::Stream { addr, .. }) = servers().ask(A, &at(long, AddressType::Unix, -1)) else {
        panic!("a stream")
    };
    assert_eq!(addr.to_string(), format!("unix:{}", "s".repeat(100)));
    let too_long: &'static str = String::leak(format!("/home/app/{}", "s".repeat(108)));
    assert_eq!(errno(&mut servers(), A, &at(too_long, AddressType::Unix, -1)), libc::ENAMETOOLONG);
}

#[test]
fn what_cannot_be_is_refused() {
    for (query, expected) in [
        (Query { fd: Some(3), port: None, address_type: AddressType::Other, ..tcp(0) }, libc::EOPNOTSUPP),
        (Query { fd: Some(0), ..tcp(80) }, libc::EOPNOTSUPP),
        (at("example.org", AddressType::Tcp4, 80), libc::EINVAL),
        (at("fe80::1%eth0", AddressType::Tcp6, 80), libc::EINVAL),
        (at("127.0.0.1", AddressType::Tcp4, 70_000), libc::EINVAL),
        (Query { port: None, ..tcp(0) }, libc::EINVAL),
        (Query { address_type: AddressType::Other, ..tcp(80) }, libc::EINVAL),
        (at("/a\0b", AddressType::Unix, -1), libc::EINVAL),
        (Query { address: None, ..at("", AddressType::Unix, -1) }, libc::EINVAL),
    ] {
        assert_eq!(errno(&mut servers(), A, &query), expected, "{query:?}");
    }
    // With `--listen` it is no other.
    let mut own = listening(&[("127.0.0.1:3000", None)]);
    assert_eq!(errno(&mut own, A, &Query { fd: Some(3), ..tcp(80) }), libc::EOPNOTSUPP);
}

#[test]
fn one_server_is_shared_by_all_who_ask_for_it() {
    let mut servers = servers();
    let first = get(&mut servers, A, &tcp(3000));
    assert_eq!(servers.ask(B, &tcp(3000)), Decision::Join(first));
    // Node 20 counts where the port is given, too: the same server.
    assert_eq!(servers.ask(C, &Query { index: 4, ..tcp(3000) }), Decision::Join(first));
    for other in [tcp(3001), at("127.0.0.1", AddressType::Tcp4, 3000), at("::1", AddressType::Tcp6, 3000)] {
        assert_ne!(get(&mut servers, A, &other), first);
    }
    assert!(servers.holds(B, first) && servers.holds(C, first));
    assert_eq!(servers.of_worker(B).collect::<Vec<_>>(), [first]);
    assert_eq!(servers.of_worker(A).count(), 4);
    let sockname = name("[::]:7");
    let outcome = ListenOutcome::HandOver { sockname: Some(&sockname), port: None };
    assert_eq!(servers.answer(first), Some(ListenReply { key: "null:3000:4:undefined", data: None, outcome }));
    assert_eq!(servers.key(first), Some("null:3000:4:undefined"));
}

#[test]
fn the_same_worker_cannot_have_it_twice_but_again() {
    let mut servers = servers();
    let first = get(&mut servers, A, &tcp(3000));
    assert_eq!(errno(&mut servers, A, &Query { index: 1, ..tcp(3000) }), libc::EADDRINUSE);
    get(&mut servers, B, &tcp(3000));
    assert_eq!(servers.closed(A, "null:3000:4:undefined"), Some(Left { server: first, was_last: false }));
    assert_eq!(servers.closed(A, "null:3000:4:undefined"), None);
    assert_eq!(servers.closed(A, "unknown"), None);
    assert!(!servers.holds(A, first));
    assert_eq!(servers.ask(A, &Query { index: 1, ..tcp(3000) }), Decision::Join(first));
}

#[test]
fn port_0_is_one_port_for_each_index_and_the_same_in_every_worker() {
    let mut servers = servers();
    let indexed = |index| Query { index, ..tcp(0) };
    let (first, second) = (get(&mut servers, A, &indexed(0)), get(&mut servers, A, &indexed(1)));
    assert_ne!(first, second);
    assert_ne!(servers.key(first), servers.key(second));
    assert_eq!([get(&mut servers, B, &indexed(0)), get(&mut servers, B, &indexed(1))], [first, second]);
}

#[test]
fn udp_sockets_are_shared_and_may_share_a_port() {
    let mut servers = servers();
    let query = at("0.0.0.0", AddressType::Udp4, 3458);
    let server = get(&mut servers, A, &query);
    assert_eq!(servers.ask(B, &query), Decision::Join(server));
    let answer = servers.answer(server).expect("answer");
    assert_eq!((answer.key, answer.outcome), ("0.0.0.0:3458:udp4:undefined", ListenOutcome::Shared(SharedKind::Udp)));
    assert_eq!(errno(&mut servers, A, &Query { index: 1, ..query.clone() }), libc::EADDRINUSE);
    let reusing = |index| Query { flags: 4, index, ..at("0.0.0.0", AddressType::Udp4, 9) };
    assert_ne!(get(&mut servers, A, &reusing(0)), get(&mut servers, A, &reusing(1)));
    assert_ne!(get(&mut servers, A, &at("0.0.0.0", AddressType::Tcp4, 3458)), server);
}

#[test]
fn what_could_not_be_opened_is_tried_again_by_the_next() {
    let mut servers = servers();
    let refusal = servers.opened(A, &tcp(80), Err(libc::EACCES)).expect_err("no permission");
    let failed =
        ListenReply { key: "null:80:4:undefined", data: None, outcome: ListenOutcome::Failed { errno: libc::EACCES } };
    assert_eq!(refusal.answer(), failed);
    assert!(matches!(servers.ask(B, &tcp(80)), Decision::Open(_)));
}

#[test]
fn the_first_worker_s_data_is_everybody_s_and_outlives_it() {
    let line = |keys: &str| {
        format!(
            r#"{{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":{keys},"address":null,"port":443,"addressType":4,"backlog":0,"seq":1}}"#
        )
    };
    let lines = [line("null"), line(r#"{"ticketKeys":"aa"}"#), line(r#"{"ticketKeys":"bb"}"#)];
    let queries = lines.each_ref().map(|line| match read(Serialization::Json, line.as_bytes()) {
        WorkerMessage::QueryServer(query) => query,
        other => panic!("{other:?}"),
    });
    let mut servers = servers();
    let server = get(&mut servers, A, &queries[0]);
    assert_eq!(servers.answer(server).expect("answer").data, None);
    let keys = Some(br#"{"ticketKeys":"aa"}"#.as_slice());
    for (worker, query) in [(B, &queries[1]), (C, &queries[2])] {
        assert_eq!(get(&mut servers, worker, query), server);
        assert_eq!(servers.answer(server).expect("answer").data, keys);
    }
    for worker in [A, B, C] {
        servers.exited(worker);
    }
    assert_eq!(get(&mut servers, WorkerId(4), &queries[2]), server);
    assert_eq!(servers.answer(server).expect("answer").data, keys);
}

#[test]
fn a_server_that_nobody_has_stays_until_it_is_forgotten() {
    let mut servers = servers();
    let (web, extra) = (get(&mut servers, A, &tcp(3000)), get(&mut servers, A, &tcp(3001)));
    get(&mut servers, B, &tcp(3000));
    let left = [Left { server: web, was_last: false }, Left { server: extra, was_last: true }];
    assert_eq!(servers.exited(A), left);
    assert_eq!(servers.exited(A), []);
    assert_eq!(servers.orphans().collect::<Vec<_>>(), [extra]);
    // A replacement finds it.
    assert_eq!(get(&mut servers, C, &tcp(3001)), extra);
    assert_eq!(servers.orphans().count(), 0);
    assert_eq!(servers.closed(C, "null:3001:4:undefined"), Some(Left { server: extra, was_last: true }));
    servers.forget(extra);
    assert_eq!((servers.key(extra), servers.answer(extra)), (None, None));
    assert_ne!(get(&mut servers, C, &tcp(3001)), extra, "a number is never used again");
}

#[test]
fn with_listen_the_first_tcp_server_is_served_from_there() {
    let own = name("127.0.0.1:8080");
    let mut servers = listening(&[("127.0.0.1:8080", None)]);
    // What is no TCP server is opened as asked, even before.
    assert!(matches!(servers.ask(A, &at("/u.sock", AddressType::Unix, -1)), Decision::Open(_)));
    assert!(matches!(servers.ask(A, &at("0.0.0.0", AddressType::Udp4, 9)), Decision::Open(_)));
    assert_eq!(servers.ask(A, &tcp(3000)), Decision::Join(ServerId::OWN));
    let answer = servers.answer(ServerId::OWN).expect("answer");
    // Node would take another port for another's server.
    assert_eq!(answer.outcome, ListenOutcome::HandOver { sockname: Some(&own), port: Some(3000) });
    assert_eq!(answer.key, "null:3000:4:undefined");
    assert_eq!(errno(&mut servers, A, &tcp(3000)), libc::EADDRINUSE);
    // Further ones are opened as asked, and workers that ask in another order agree.
    let admin = get(&mut servers, A, &tcp(9000));
    assert_eq!(get(&mut servers, B, &tcp(9000)), admin);
    assert_eq!(servers.ask(B, &tcp(3000)), Decision::Join(ServerId::OWN));
    assert!(servers.holds(A, ServerId::OWN) && servers.holds(B, ServerId::OWN));
    // Workers die: haft's own is no orphan, the same server comes back to it, and one that is known stays what it is.
    servers.exited(A);
    servers.exited(B);
    assert_eq!(servers.orphans().collect::<Vec<_>>(), [admin]);
    assert_eq!(get(&mut servers, C, &tcp(9000)), admin);
    assert_eq!(servers.ask(C, &tcp(3000)), Decision::Join(ServerId::OWN));
}

#[test]
fn with_listen_the_server_that_asks_for_its_port_takes_the_place_of_the_first() {
    let mut servers = listening(&[("[::]:3000", None)]);
    assert_eq!(servers.ask(A, &tcp(9464)), Decision::Join(ServerId::OWN));
    assert!(servers.is_provisional());
    let Decision::Displace(metrics, Spec::Stream { addr, .. }) = servers.ask(A, &tcp(3000)) else {
        panic!("the other one fits better")
    };
    assert_eq!(addr.to_string(), ":9464");
    assert!(!servers.is_provisional());
    assert_eq!(servers.key_for(A, ServerId::OWN), Some("null:3000:4:undefined"));
    assert_eq!(servers.key_for(A, metrics), Some("null:9464:4:undefined"));
    // Other workers, in any order.
    assert_eq!(servers.ask(B, &tcp(3000)), Decision::Join(ServerId::OWN));
    assert_eq!(servers.ask(B, &tcp(9464)), Decision::Join(metrics));
    // All of them die, and come again.
    servers.exited(A);
    servers.exited(B);
    assert_eq!(servers.ask(C, &tcp(9464)), Decision::Join(metrics));
    assert_eq!(servers.ask(C, &tcp(3000)), Decision::Join(ServerId::OWN));
}

#[test]
fn with_listen_one_port_at_two_addresses_is_one_server() {
    let mut servers = listening(&[("[::]:3000", None)]);
    let (v4, v6) = (at("127.0.0.1", AddressType::Tcp4, 3000), at("::1", AddressType::Tcp6, 3000));
    assert_eq!(servers.ask(A, &v4), Decision::Join(ServerId::OWN));
    let beside = get(&mut servers, A, &v6);
    assert_eq!(servers.listener_of(beside), ServerId::OWN);
    assert_eq!(servers.ask(B, &v6), Decision::Join(beside));
    assert_eq!(servers.key_for(B, ServerId::OWN), Some("::1:3000:6:undefined"), "it has no other yet");
    assert_eq!(servers.ask(B, &v4), Decision::Join(ServerId::OWN));
    assert_eq!(servers.closed(A, "127.0.0.1:3000:4:undefined"), Some(Left { server: ServerId::OWN, was_last: false }));
    assert!(servers.holds(A, ServerId::OWN), "by the other address");
}

#[test]
fn with_listen_a_server_may_be_named_by_its_port() {
    let own = [("[::]:443", Some(3000)), ("[::]:80", Some(3000)), ("[::]:9000", Some(9464)), ("[::]:7000", None)];
    let (_, ids) = Own::new(own.iter().map(|(addr, port)| (name(addr), *port)));
    assert_eq!(ids, [ServerId(1), ServerId(1), ServerId(2), ServerId::OWN]);
    let mut servers = listening(&own);
    assert_eq!(servers.ask(A, &tcp(9464)), Decision::Join(ids[2]));
    assert_eq!(servers.ask(A, &tcp(3000)), Decision::Join(ids[0]));
    assert_eq!(servers.ask(A, &tcp(5000)), Decision::Join(ServerId::OWN));
    assert!(matches!(servers.ask(A, &tcp(6000)), Decision::Open(_)));
    servers.exited(A);
    assert_eq!(servers.orphans().count(), 0, "they are no program's to close");
}

#[test]
fn a_worker_that_looks_for_a_free_port_finds_the_one_that_the_others_have() {
    let mut servers = servers();
    let everywhere = get(&mut servers, A, &tcp(3000));
    // Before it listens itself it tries each address.
    for (address, kind) in
        [("127.0.0.1", AddressType::Tcp4), ("0.0.0.0", AddressType::Tcp4), ("::1", AddressType::Tcp6)]
    {
        let probe = get(&mut servers, B, &at(address, kind, 3000));
        assert_eq!(servers.listener_of(probe), everywhere, "{address}");
        let key = servers.key(probe).expect("a key").to_owned();
        servers.closed(B, &key);
        servers.forget(probe);
    }
    assert_eq!(servers.ask(B, &tcp(3000)), Decision::Join(everywhere));
    // One that has it already is answered as it would be alone.
    assert!(matches!(servers.ask(A, &at("127.0.0.1", AddressType::Tcp4, 3000)), Decision::Open(_)));
}

#[test]
fn a_slot_is_expected_to_have_what_its_last_worker_had() {
    let mut servers = servers();
    let (left, right) = (Slot(0), Slot(1));
    servers.started(A, left);
    servers.started(B, right);
    let web = get(&mut servers, A, &tcp(3000));
    assert!(servers.is_expected(right, web), "it has asked for nothing yet");
    get(&mut servers, B, &tcp(3000));
    let admin = get(&mut servers, A, &tcp(9000));
    assert!(servers.is_expected(left, admin) && !servers.is_expected(right, admin));
    servers.exited(A);
    assert!(servers.is_expected(left, admin) && servers.is_expected(left, web));
    // One that dies before it asks for anything changes nothing.
    servers.started(C, left);
    servers.exited(C);
    assert!(servers.is_expected(left, admin));
    let next = WorkerId(4);
    servers.started(next, left);
    get(&mut servers, next, &tcp(3000));
    servers.exited(next);
    assert!(servers.is_expected(left, web) && !servers.is_expected(left, admin));
}

#[test]
fn with_listen_a_new_program_on_another_port_is_served_from_there_too() {
    let mut servers = listening(&[("127.0.0.1:8080", None)]);
    assert_eq!(servers.ask(A, &tcp(3000)), Decision::Join(ServerId::OWN));
    assert!(matches!(servers.ask(B, &tcp(4000)), Decision::Open(_)), "the old one is in use");
    servers.exited(A);
    assert_eq!(servers.ask(C, &tcp(4000)), Decision::Join(ServerId::OWN));
    assert_eq!(servers.key(ServerId::OWN), Some("null:4000:4:undefined"));
    assert!(matches!(servers.ask(C, &tcp(3000)), Decision::Open(_)));
}

#[test]
fn whoever_asks_for_any_port_is_told_the_real_one() {
    let own = name("127.0.0.1:8080");
    let mut servers = listening(&[("127.0.0.1:8080", None)]);
    assert_eq!(servers.ask(A, &tcp(0)), Decision::Join(ServerId::OWN));
    let outcome = ListenOutcome::HandOver { sockname: Some(&own), port: None };
    assert_eq!(servers.answer(ServerId::OWN).map(|answer| answer.outcome), Some(outcome));
}

#[test]
fn servers_are_bounded() {
    let mut servers = servers();
    let opened = (1..2000).take_while(|port| match servers.ask(A, &tcp(*port)) {
        Decision::Open(_) => servers.opened(A, &tcp(*port), Ok(None)).is_ok(),
        _ => false,
    });
    let opened = opened.count() as u16;
    assert!((100..1000).contains(&opened), "{opened}");
    assert_eq!(errno(&mut servers, A, &tcp(opened + 1)), libc::EMFILE);
    assert!(matches!(servers.ask(B, &tcp(1)), Decision::Join(_)), "what is there can be had");
}

/// A program asks whether a port is free, is shown that of `--listen`, and listens there, in each worker and after a reload.
#[test]
fn a_port_that_is_only_probed_is_shown_to_all_workers_alike() {
    let own = name("127.0.0.1:8080");
    let probe = |servers: &mut Servers, worker| {
        let server = match servers.ask(worker, &tcp(3000)) {
            Decision::Join(server) => server,
            other => panic!("{other:?}"),
        };
        let outcome = ListenOutcome::HandOver { sockname: Some(&own), port: Some(3000) };
        assert_eq!(servers.answer(server).expect("answer").outcome, outcome);
    };
    let found = |servers: &mut Servers, worker| {
        servers.closed(worker, "null:3000:4:undefined");
        assert_eq!(servers.ask(worker, &tcp(8080)), Decision::Join(ServerId::OWN));
        assert_eq!(servers.key_for(worker, ServerId::OWN), Some("null:8080:4:undefined"));
    };
    for together in [false, true] {
        let mut servers = listening(&[("127.0.0.1:8080", None)]);
        servers.started(A, Slot(0));
        servers.started(B, Slot(1));
        probe(&mut servers, A);
        if together {
            probe(&mut servers, B);
            found(&mut servers, A);
        } else {
            found(&mut servers, A);
            probe(&mut servers, B);
        }
        found(&mut servers, B);
        servers.started(C, Slot(0));
        probe(&mut servers, C);
        found(&mut servers, C);
    }
}

//! What a hostile worker can make the registry keep.

use std::path::PathBuf;

use super::{body_of, read, tcp, with_frame};
use crate::ids::WorkerId;
use crate::node::wire::message::WorkerMessage;
use crate::node::wire::servers::{MAX_ADDRESS, MAX_DATA, MAX_DATA_IN_ALL, MAX_SERVERS, MAX_SERVERS_OF_ONE};
use crate::node::wire::{
    AddressType, Decision, IpcViolation, ListenOutcome, ListenReply, MAX_SOCKETS, Own, Query, Serialization, ServerId,
    Servers, Session, SharedKind, Sockname,
};

fn servers(own: Option<&str>) -> Servers {
    let own = own.map(|own| (Sockname::Ip(own.parse().expect("address")), None));
    Servers::new(Own::new(own).0, PathBuf::from("/home/app"))
}

/// The error that a query gets; 0: it gets a server.
fn ask(servers: &mut Servers, worker: u64, query: &Query<'_>) -> i32 {
    match servers.ask(WorkerId(worker), query) {
        Decision::Join(_) | Decision::Displace(..) => 0,
        Decision::Open(_) => servers.opened(WorkerId(worker), query, Ok(None)).map_or_else(|it| it.errno, |_| 0),
        Decision::Refuse(refusal) => refusal.errno,
    }
}

/// A query for a port, with so many bytes of data (two of them are its quotation marks).
fn with_data<T>(port: u16, len: usize, act: impl FnOnce(&Query<'_>) -> T) -> T {
    let data = "x".repeat(len - 2);
    let line = format!(
        r#"{{"cmd":"NODE_CLUSTER","act":"queryServer","seq":1,"address":null,"port":{port},"addressType":4,"fd":null,"index":0,"flags":0,"data":"{data}"}}"#
    );
    match read(Serialization::Json, line.as_bytes()) {
        WorkerMessage::QueryServer(query) => act(&query),
        other => panic!("{other:?}"),
    }
}

#[test]
fn data_is_kept_up_to_a_bound_for_each_server_and_for_all() {
    for own in [None, Some("[::]:3000")] {
        let mut all = servers(own);
        assert_eq!(with_data(3000, MAX_DATA + 1, |query| ask(&mut all, 1, query)), libc::EMSGSIZE);
        let fitting = (MAX_DATA_IN_ALL / MAX_DATA) as u16;
        for port in 0..fitting {
            assert_eq!(with_data(3000 + port, MAX_DATA, |query| ask(&mut all, 1, query)), 0, "{port}");
        }
        assert_eq!(with_data(4000, MAX_DATA, |query| ask(&mut all, 1, query)), libc::ENOBUFS);
        // What another worker brings for a server that has data is not kept.
        assert_eq!(with_data(3001, MAX_DATA + 1, |query| ask(&mut all, 2, query)), 0);
        assert_eq!(ask(&mut all, 2, &tcp(4000)), 0, "without data there is room");
        all.forget(ServerId::OWN);
    }
}

#[test]
fn an_address_is_no_longer_than_a_path_whatever_it_is_for() {
    for own in [None, Some("[::]:3000")] {
        for address_type in [AddressType::Tcp4, AddressType::Unix, AddressType::Udp6] {
            let query = Query { address: Some("x".repeat(MAX_ADDRESS + 1).into()), address_type, ..tcp(3000) };
            let Decision::Refuse(refusal) = servers(own).ask(WorkerId(1), &query) else { panic!("{address_type:?}") };
            assert_eq!(refusal.errno, libc::ENAMETOOLONG);
            assert!(refusal.answer().key.is_empty(), "it is not sent back");
        }
    }
}

#[test]
fn one_worker_leaves_room_for_the_servers_of_the_others() {
    let mut all = servers(None);
    let mut opened = |worker: u64, ports: std::ops::Range<u16>| {
        ports.map(|port| ask(&mut all, worker, &tcp(port))).filter(|errno| *errno == 0).count()
    };
    assert_eq!(opened(1, 1000..2000), MAX_SERVERS_OF_ONE);
    assert_eq!(opened(2, 2000..3000), MAX_SERVERS_OF_ONE);
    assert_eq!(opened(3, 3000..4000), MAX_SERVERS - 2 * MAX_SERVERS_OF_ONE);
}

/// Each socket that it asks for and does not acknowledge would be remembered, and be in flight in the kernel.
#[test]
fn a_worker_that_acknowledges_no_socket_is_ended() {
    let mut session = Session::new(Serialization::Json, [].into());
    let body = body_of(
        Serialization::Json,
        r#"{"cmd":"NODE_CLUSTER","act":"queryServer","seq":1,"address":null,"port":53,"addressType":"udp4","fd":null,"index":0,"flags":0}"#,
    );
    let answer = ListenReply { key: "key", data: None, outcome: ListenOutcome::Shared(SharedKind::Udp) };
    let mut asked = 0;
    let violation = loop {
        let received = with_frame(Serialization::Json, &body, |frame| session.receive(frame).map(|_| ()));
        if let Err(violation) = received {
            break violation;
        }
        asked += 1;
        session.answer(asked, ServerId::OWN, &answer);
        while let Some((bytes, _)) = session.next() {
            let len = bytes.len();
            session.sent(len).expect("whole");
        }
        assert!(asked < 10 * MAX_SOCKETS as u64);
    };
    assert!(
        matches!(violation, IpcViolation::DoesNotAcknowledge { sockets } if sockets == MAX_SOCKETS + 1),
        "{violation}"
    );
}

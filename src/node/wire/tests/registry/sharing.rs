//! Workers that accept by themselves, from listeners of their own.

use super::*;

#[test]
fn workers_that_accept_by_themselves_get_a_listener_for_a_tcp_server() {
    let mut servers = listening(&[("127.0.0.1:8080", None)]);
    servers.share_listeners(false);
    // Node takes a listener on another port than it asked for to have failed.
    assert_eq!(errno(&mut servers, A, &tcp(3000)), libc::EADDRINUSE);
    assert!(!servers.holds(A, ServerId::OWN));
    for query in [tcp(8080), tcp(0)] {
        let mut servers = listening(&[("127.0.0.1:8080", None)]);
        servers.share_listeners(false);
        assert_eq!(servers.ask(A, &query), Decision::Join(ServerId::OWN));
        let outcome = |server| servers.answer(server).map(|answer| answer.outcome);
        assert_eq!(outcome(ServerId::OWN), Some(ListenOutcome::Shared(SharedKind::Listener)));
    }
    let mut servers = Servers::new(Own::default(), "/".into());
    servers.share_listeners(false);
    for (query, outcome) in [
        (tcp(3000), ListenOutcome::Shared(SharedKind::Listener)),
        (at("::1", AddressType::Tcp6, 3001), ListenOutcome::Shared(SharedKind::Listener)),
        (at("0.0.0.0", AddressType::Udp4, 9), ListenOutcome::Shared(SharedKind::Udp)),
        // The kernel cannot choose there.
        (at("/u.sock", AddressType::Unix, -1), ListenOutcome::HandOver { sockname: Some(&name("[::]:7")), port: None }),
    ] {
        let server = get(&mut servers, A, &query);
        assert_eq!(servers.answer(server).map(|answer| answer.outcome), Some(outcome), "{query:?}");
    }
}

#[test]
fn which_server_a_listener_is_for_is_settled_before_a_worker_gets_it_and_it_is_told_its_own_port() {
    let mut servers = listening(&[("127.0.0.1:8080", None)]);
    servers.share_listeners(true);
    let as_asked = Some(ListenOutcome::Shared(SharedKind::ListenerAs(3000)));
    assert_eq!(servers.ask(A, &tcp(3000)), Decision::Join(ServerId::OWN));
    assert_eq!(servers.answer(ServerId::OWN).map(|answer| answer.outcome), as_asked);
    assert!(servers.is_unsettled(ServerId::OWN));
    // In the other worker the server that fits comes in time: the first one is opened as it was asked for.
    let mut displaced = listening(&[("127.0.0.1:8080", None)]);
    displaced.share_listeners(true);
    displaced.ask(A, &tcp(3000));
    let Decision::Displace(first, _) = displaced.ask(A, &tcp(8080)) else { panic!("the second fits") };
    assert!(!displaced.is_unsettled(ServerId::OWN));
    assert_eq!(displaced.named(A, "null:3000:4:undefined"), Ok(first));
    for server in [first, ServerId::OWN] {
        assert_eq!(displaced.answer(server).map(|it| it.outcome), Some(ListenOutcome::Shared(SharedKind::Listener)));
    }
    displaced.forget(first);
    assert!(displaced.named(A, "null:3000:4:undefined").is_err_and(|it| it.errno == libc::EADDRINUSE));
    // It comes late: the first worker accepts from the listener already, so both are handed over.
    servers.settle();
    assert!(!servers.is_unsettled(ServerId::OWN) && !servers.is_by_master());
    let Decision::Displace(first, _) = servers.ask(A, &tcp(8080)) else { panic!("the second fits") };
    assert!(servers.is_by_master());
    servers.set_address(first, name("127.0.0.1:3000"));
    let outcome = |servers: &Servers, server| match servers.answer(server).map(|it| it.outcome) {
        Some(ListenOutcome::HandOver { sockname: Some(name), port }) => (name.port(), port),
        other => panic!("{other:?}"),
    };
    assert_eq!(outcome(&servers, ServerId::OWN), (Some(8080), Some(8080)));
    assert_eq!(outcome(&servers, first), (Some(3000), None));
    // And so for other workers, and at another address of the port.
    assert_eq!(servers.ask(B, &tcp(3000)), Decision::Join(first));
    assert_eq!(servers.ask(B, &tcp(8080)), Decision::Join(ServerId::OWN));
    let beside = get(&mut servers, B, &at("127.0.0.2", AddressType::Tcp4, 8080));
    assert_eq!(outcome(&servers, beside), (Some(8080), Some(8080)));
    assert!([first, ServerId::OWN].iter().all(|server| servers.holds(A, *server) && servers.holds(B, *server)));
}

#[test]
fn several_listeners_are_each_for_the_server_that_they_name_also_where_workers_accept_by_themselves() {
    let mut servers = listening(&[("127.0.0.1:8080", Some(3000)), ("127.0.0.1:9090", Some(9090))]);
    servers.share_listeners(true);
    let web = get(&mut servers, A, &tcp(3000));
    let other = get(&mut servers, A, &tcp(9090));
    assert!(servers.is_own(web) && servers.is_own(other) && web != other);
    let outcome = |server| servers.answer(server).map(|answer| answer.outcome);
    assert_eq!(outcome(web), Some(ListenOutcome::Shared(SharedKind::ListenerAs(3000))));
    assert_eq!(outcome(other), Some(ListenOutcome::Shared(SharedKind::Listener)));
}

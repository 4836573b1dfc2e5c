//! Which criterion of `--affinity` decides.

use super::*;
use crate::peek::{MAX_VALUE, SourceKind};
use crate::route::ValueKeys;

const HEAD: &str = "Host: x\r\n";

/// The request of a client with these headers.
fn request(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{HEAD}{headers}\r\n")
}

#[tokio::test]
async fn the_first_criterion_that_is_there_decides() {
    let mut rig = Fixture::new(&["-w", "8", "--affinity", "session,cookie:uid,query:room,path:2"]);
    let sid = rig.tagged(TAG);
    let long = "v".repeat(MAX_VALUE + 1);
    for (target, headers, goal, value) in [
        (format!("/socket.io/?sid={sid}&room=a"), "Cookie: uid=7\r\n", RouteBy::Session(TAG), None),
        ("/socket.io/?room=a".to_owned(), "Cookie: uid=7\r\n", RouteBy::Value(SourceKind::Cookie), Some("7")),
        ("/socket.io/?room=a".to_owned(), "", RouteBy::Value(SourceKind::Query), Some("a")),
        ("/doc/42?room=".to_owned(), "", RouteBy::Value(SourceKind::Path), Some("42")),
        ("/socket.io/".to_owned(), "", RouteBy::RecentSessions, None),
        ("/".to_owned(), "", RouteBy::Address, None),
        (format!("/doc/b?room={long}"), "", RouteBy::Value(SourceKind::Path), Some("b")),
        (format!("/?room={long}"), "Cookie: uid=\r\n", RouteBy::Address, None),
    ] {
        let request = request(&target, headers);
        let (_client, outcome) = rig.arrive(request.as_bytes());
        let key = match &outcome {
            Some(Outcome::Assign(connection)) => connection.key,
            other => panic!("{other:?}"),
        };
        let expected = match value {
            Some(value) => ValueKeys::new(&TagKey::of_text("a key for tests")).key(value.as_bytes()),
            None => rig.dispatch.key(&EndAddr::Ip((Ipv4Addr::new(127, 0, 0, 9), 7).into())),
        };
        assert_eq!(key, expected, "{request}");
        assert_eq!(assigned(outcome, request.as_bytes()).0, goal, "{request}");
    }
    let counts = rig.peeking.counts.criteria.iter();
    let counts: Vec<_> = counts.map(|it| (it.criterion.as_str(), it.decided, it.absent, it.too_long)).collect();
    let expected = [("session", 1, 7, 0), ("cookie:uid", 1, 6, 0), ("query:room", 1, 3, 2), ("path:2", 2, 3, 0)];
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn headers_are_waited_for_only_where_they_may_decide_and_are_counted_once() {
    let mut rig = Fixture::new(&["-w", "8", "--affinity", "query:room,cookie:uid"]);
    let (_client, outcome) = rig.arrive(b"GET /?room=a HTTP/1.1\r\n");
    assert_eq!(assigned(outcome, b"GET /?room=a HTTP/1.1\r\n").0, RouteBy::Value(SourceKind::Query));
    let (mut client, outcome) = rig.arrive(b"GET / HTTP/1.1\r\nCook");
    assert!(outcome.is_none());
    client.write_all(b"ie: uid=7\r\n").expect("write");
    assert!(rig.look().is_none());
    client.write_all(b"\r\n").expect("write");
    let outcome = rig.look();
    assert_eq!(assigned(outcome, b"GET / HTTP/1.1\r\nCookie: uid=7\r\n\r\n").0, RouteBy::Value(SourceKind::Cookie));
    let [query, cookie] = &rig.peeking.counts.criteria[..] else { panic!("two criteria") };
    assert_eq!((query.decided, query.absent, cookie.decided, cookie.absent), (1, 1, 1, 0));
}

#[tokio::test]
async fn of_a_head_that_is_longer_than_is_looked_at_what_is_there_counts() {
    let mut rig = Fixture::new(&["-w", "8", "--affinity", "cookie:uid,query:room"]);
    let filling = format!("X: {}\r\n", "x".repeat(MAX_PEEKED));
    for (headers, goal) in [
        (format!("Cookie: uid=7\r\n{filling}"), RouteBy::Value(SourceKind::Cookie)),
        (format!("{filling}Cookie: uid=7\r\n"), RouteBy::Value(SourceKind::Query)),
    ] {
        let request = request("/?room=a", &headers);
        let (_client, outcome) = rig.arrive(request.as_bytes());
        assert_eq!(assigned(outcome, request.as_bytes()).0, goal);
    }
    assert_eq!(rig.peeking.counts.too_long, 2);
}

#[tokio::test]
async fn what_ends_the_list_decides_where_nothing_of_it_is_there() {
    for (affinity, opening, other) in [
        ("session", RouteBy::RecentSessions, RouteBy::Address),
        ("session,query:room", RouteBy::RecentSessions, RouteBy::Address),
        ("session,query:room,ip", RouteBy::Address, RouteBy::Address),
        // The master turns an address into the least load where `none` is at the end.
        ("session,query:room,none", RouteBy::Address, RouteBy::Address),
    ] {
        let mut rig = Fixture::new(&["-w", "8", "--affinity", affinity]);
        for (target, goal) in [("/socket.io/?EIO=4", opening), ("/x", other)] {
            let request = request(target, "");
            let (_client, outcome) = rig.arrive(request.as_bytes());
            assert_eq!(assigned(outcome, request.as_bytes()).0, goal, "{affinity}: {target}");
        }
    }
}

#[tokio::test]
async fn a_value_decides_for_clients_of_a_proxy_too_and_another_list_counts_anew() {
    let flags = ["-w", "8", "--client-ip-header", "x-real-ip", "--trusted-proxy", "127.0.0.9", "--affinity"];
    let mut rig = Fixture::new(&[&flags[..], &["query:room"]].concat());
    let request = request("/?room=a", "X-Real-IP: 192.0.2.7\r\n");
    let (_client, outcome) = rig.arrive(request.as_bytes());
    let expected = (RouteBy::Value(SourceKind::Query), "192.0.2.7:0".to_owned());
    assert_eq!(assigned(outcome, request.as_bytes()), expected);

    let words = ["haft", "-w", "8", "--affinity", "cookie:uid,query:room", "--", "true"];
    let Parsed::Run(config) = flags::parse_from(words) else { panic!("no configuration") };
    rig.peeking.reconfigure(&config, Rules::new(&config, &TagKey::of_text("a key for tests")), 1000);
    let counts = rig.peeking.counts.criteria.iter().map(|it| (it.criterion.as_str(), it.decided));
    assert_eq!(counts.collect::<Vec<_>>(), [("cookie:uid", 0), ("query:room", 1)]);
}

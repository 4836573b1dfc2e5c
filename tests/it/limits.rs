//! Limits for clients: who may come, how fast, and how many at once. One client harms nobody else.

use std::net::Ipv4Addr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::{Client, Haft, Setup};

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);

fn silent(haft: &Haft, from: Ipv4Addr) -> Client {
    Client::connect_from(from, haft.address()).expect("connect")
}

fn assert_served(client: &mut Client) {
    client.receive().expect("an answer and no reset");
}

#[test]
fn who_may_not_connect_is_reset_before_anything_else() {
    for affinity in ["ip", "session"] {
        let flags =
            ["-w", "1", "--affinity", affinity, "--allow", "127.0.0.0/8", "--deny", "127.0.0.9", "--max-rate", "1/m:1"];
        let mut haft = Setup::new(&flags).start_all();
        Client::asking(&haft, ONE).wait_for_reset();
        assert_served(&mut Client::asking(&haft, OTHER));
        let status = haft.wait("all are settled", |status| status.in_flight() == 0);
        assert_eq!((status.refused("denied"), status.refused_in_all(), status.delivered()), (1, 1, 1));
        haft.log().line_with("most are from 127.0.0.9 (1)");
        haft.stop();
    }
    let haft = Setup::new(&["-w", "1", "--allow", "127.0.0.10"]).start_all();
    Client::asking(&haft, ONE).wait_for_reset();
    assert_served(&mut Client::asking(&haft, OTHER));
    haft.stop();
}

#[test]
fn a_client_that_comes_too_fast_is_refused_where_that_is_wanted_and_nobody_else_is() {
    let flags = ["-w", "1", "--max-rate-per-client", "1/m:3", "--over-limit", "refuse"];
    let mut haft = Setup::new(&flags).start_all();
    for _ in 0..3 {
        assert_served(&mut Client::asking(&haft, ONE));
    }
    for _ in 0..5 {
        Client::asking(&haft, ONE).wait_for_reset();
    }
    assert_served(&mut Client::asking(&haft, OTHER));
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.refused("over_limit"), status.refused_in_all(), status.delivered()), (5, 5, 4));
    haft.log().line_with("clients are over the limits; most are from 127.0.0.9 (");
    haft.stop();
}

#[test]
fn a_client_that_comes_too_fast_waits_for_its_turn_and_nobody_else_does() {
    let mut haft = Setup::new(&["-w", "1", "--max-rate-per-client", "5/s:2", "--hold-timeout", "30s"]).start_all();
    let mut clients: Vec<Client> = (0..8).map(|_| Client::asking(&haft, ONE)).collect();
    let status = haft.wait("the rest waits", |status| status.0["routing"]["delayed"].as_u64() == Some(6));
    assert!(status.delivered() < 8, "{status:?}");
    assert_served(&mut Client::asking(&haft, OTHER));
    clients.iter_mut().for_each(assert_served);
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.refused_in_all(), status.delivered()), (0, 9));
    haft.stop();
}

#[test]
fn past_the_hold_time_it_is_refused() {
    let haft = Setup::new(&["-w", "1", "--max-rate-per-client", "1/m:1", "--hold-timeout", "1s"]).start_all();
    assert_served(&mut Client::asking(&haft, ONE));
    // Its turn would come after a minute.
    Client::asking(&haft, ONE).wait_for_reset();
    assert_eq!(haft.status().refused("over_limit"), 1);
    haft.stop();
}

#[test]
fn all_together_come_as_fast_as_they_may_and_wait_in_the_kernel_s_queue_or_are_refused() {
    let mut haft = Setup::new(&["-w", "1", "--max-rate", "10/s:2"]).start_all();
    let mut clients: Vec<Client> = (0..8).map(|_| Client::asking(&haft, ONE)).collect();
    clients.iter_mut().for_each(assert_served);
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.refused_in_all(), status.delivered()), (0, 8));
    // Those that wait at the end are taken, too.
    let mut last: Vec<Client> = (0..8).map(|_| Client::asking(&haft, ONE)).collect();
    haft.signal(nix::sys::signal::Signal::SIGTERM);
    last.iter_mut().for_each(assert_served);
    assert!(haft.wait_for_exit().success());

    let haft = Setup::new(&["-w", "1", "--max-rate", "1/m:2", "--over-limit", "refuse"]).start_all();
    for from in [ONE, OTHER] {
        assert_served(&mut Client::asking(&haft, from));
    }
    Client::asking(&haft, OTHER).wait_for_reset();
    assert_eq!(haft.status().refused("over_limit"), 1);
    haft.stop();
}

#[test]
fn one_client_has_no_more_waiting_than_it_may() {
    let session = ["-w", "1", "--affinity", "session", "--max-waiting-per-client", "3"];
    let mut haft = Setup::new(&[&session[..], &["--over-limit", "refuse"]].concat()).start_all();
    let mut clients: Vec<Client> = (0..3).map(|_| silent(&haft, ONE)).collect();
    haft.wait("they wait", |status| status.held() == 3);
    silent(&haft, ONE).wait_for_reset();
    assert_served(&mut Client::asking(&haft, OTHER));
    clients[0].send("/").expect("send");
    assert_served(&mut clients[0]);
    haft.wait("it is served", |status| status.delivered() == 2 && status.held() == 2);
    assert_served(&mut Client::asking(&haft, ONE));
    assert_eq!(haft.status().refused("over_limit"), 1);
    haft.stop();

    let mut haft = Setup::new(&session).start_all();
    let mut clients: Vec<Client> = (0..3).map(|_| silent(&haft, ONE)).collect();
    haft.wait("they wait", |status| status.held() == 3);
    let mut fourth = Client::asking(&haft, ONE);
    haft.wait("it stands in line", |status| status.0["routing"]["at_the_gate"].as_u64() == Some(1));
    clients[0].send("/").expect("send");
    assert_served(&mut fourth);
    assert_eq!(haft.status().refused_in_all(), 0);
}

#[test]
fn behind_a_proxy_the_limits_are_those_of_the_client_that_it_tells() {
    let flags = [
        "-w",
        "1",
        "--proxy-protocol",
        "--trusted-proxy",
        "127.0.0.1",
        "--max-rate-per-client",
        "1/m:1",
        "--over-limit",
        "refuse",
    ];
    let haft = Setup::new(&flags).start_all();
    let tell = |client: &str| {
        let mut connection = silent(&haft, Ipv4Addr::LOCALHOST);
        let header = format!("PROXY TCP4 {client} 192.0.2.99 4000 80\r\nGET / HTTP/1.1\r\nHost: haft\r\n\r\n");
        connection.write(header.as_bytes()).expect("send");
        connection
    };
    assert_served(&mut tell("192.0.2.1"));
    tell("192.0.2.1").wait_for_reset();
    assert_served(&mut tell("192.0.2.2"));
    haft.log().line_with("most are from 192.0.2.1 (1)");
    haft.stop();
}

#[test]
fn one_address_with_5000_idle_connections_at_1024_descriptors_harms_nobody() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the limit");
    assert!(hard > 6000, "this test holds 5000 connections, and the hard limit on descriptors is {hard}");
    let flags = ["-w", "2", "--affinity", "session", "--peek-timeout", "3s"];
    let mut haft = Setup::new(&flags).after("ulimit -n 1024").start_all();
    let others =
        |haft: &Haft| -> Vec<Client> { (1..=30).map(|n| Client::asking(haft, Ipv4Addr::new(127, 0, 2, n))).collect() };
    let idle: Vec<Client> = (0..5000).map(|_| silent(&haft, ONE)).collect();
    others(&haft).iter_mut().for_each(assert_served);
    haft.wait("all of them have come", |status| status.accepted() >= 5030);
    others(&haft).iter_mut().for_each(assert_served);
    // What still waits of them goes to the workers when its time is over.
    let status = haft.wait("none is waited for", |status| status.held() == 0 && status.in_flight() == 0);
    assert!(status.refused("over_limit") > 4000, "{status:?}");
    others(&haft).iter_mut().for_each(assert_served);
    drop(idle);
    haft.stop();
}

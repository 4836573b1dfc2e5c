//! Every form of `--listen`, alone and together.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::harness::{Client, Setup, slot_of};

fn port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn dual_stack_serves_both_families_and_an_ipv4_client_has_one_name() {
    let haft = Setup::new(&["-w", "2", "-l", ":0"]).start_all();
    let port = port(&haft.addresses(1)[0]);
    let four = Client::connect(([127, 0, 0, 1], port).into()).expect("IPv4").ask("/").expect("answer");
    assert!(four.client.starts_with("127.0.0.1:"), "not mapped: {}", four.client);
    assert_eq!(four.slot, slot_of(Ipv4Addr::LOCALHOST, 2));
    let six = Client::connect((Ipv6Addr::LOCALHOST, port).into()).expect("IPv6").ask("/").expect("answer");
    assert!(six.client.starts_with("[::1]:"), "{}", six.client);
    assert_eq!(six.slot, slot_of(Ipv6Addr::LOCALHOST, 2));
    haft.stop();
}

#[test]
fn several_listeners_are_served_at_once_and_told_apart() {
    let haft =
        Setup::new(&["-w", "2", "-l", "127.0.0.1:0", "-l", "[::1]:0", "-l", "unix:{dir}/clients.sock"]).start_all();
    let addresses = haft.addresses(3);
    let path = haft.folder().join("clients.sock");
    let six: SocketAddr = addresses[1].parse().expect("an address");
    for _ in 0..2 {
        let mut clients = [
            Client::connect(addresses[0].parse().expect("an address")).expect("IPv4"),
            Client::connect(six).expect("IPv6"),
            Client::connect_unix(&path).expect("Unix"),
        ];
        for (listener, (client, name)) in clients.iter_mut().zip(["127.0.0.1:", "[::1]:", "unix"]).enumerate() {
            let answer = client.ask("/").expect("answer");
            assert!(answer.client.starts_with(name), "{answer:?}");
            assert_eq!(answer.listener, listener);
        }
    }
    assert!(Client::connect((Ipv4Addr::LOCALHOST, six.port()).into()).is_err(), "an IPv6 listener takes IPv6 only");
    haft.stop();
}

//! The accept queues that the kernel fills: whatever becomes of a worker, those who wait there are served.

use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Answer, Client, Haft, Load, Setup, Status, addresses_of, eventually, order_of, signal, slot_of};

const KERNEL: [&str; 2] = ["--dispatch", "kernel"];

pub fn setup(flags: &[&str]) -> Setup {
    Setup::new(&[&KERNEL, flags].concat())
}

/// Clients of a slot, each of an address of its own, that have asked.
pub fn ask(haft: &Haft, slot: usize, slots: usize, count: usize) -> Vec<Client> {
    addresses_of(slot, slots).take(count).map(|from| Client::asking(haft, from)).collect()
}

pub fn answers(clients: Vec<Client>) -> Vec<Answer> {
    clients.into_iter().map(|mut client| client.receive().expect("an answer and no reset")).collect()
}

pub fn waiting(status: &Status, slot: usize) -> u64 {
    status.of_slot(slot, "accept_queue")
}

/// Makes changes while clients come, one after the other from each of two threads; `check` is told of each answer.
pub fn while_clients_come(haft: &Haft, check: impl Fn(Ipv4Addr, Answer) + Sync, change: impl FnOnce()) {
    let load = Load::default();
    thread::scope(|scope| {
        let _until = load.until();
        for thread in 0..2_u8 {
            let (load, check) = (&load, &check);
            scope.spawn(move || {
                for n in (1..=250).cycle().take_while(|_| load.goes_on()) {
                    let from = Ipv4Addr::new(127, 0, 2 + thread, n);
                    check(from, Client::asking(haft, from).receive().expect("an answer and no reset"));
                }
            });
        }
        change();
    });
}

/// How many connections each worker says it has; one that has said nothing has none.
fn opened(status: &Status) -> Vec<u64> {
    status.slots().map(|slot| slot["open"].as_u64().unwrap_or(0)).collect()
}

#[test]
fn each_client_is_served_by_the_worker_of_its_slot_without_the_master() {
    for listen in ["127.0.0.1:0", "0"] {
        let haft = setup(&["-w", "3", "-l", listen]).start_all();
        let to = format!("127.0.0.1:{}", haft.addresses(1)[0].rsplit(':').next().expect("a port"));
        for n in 1..=60 {
            let from = Ipv4Addr::new(127, 0, 5, n);
            let mut client = Client::connect_from(from, to.parse().expect("an address")).expect("connect");
            let answer = client.ask("/").expect("an answer");
            assert_eq!((answer.slot, answer.listener), (slot_of(from, 3), 0), "{from}");
            assert!(answer.client.starts_with(&format!("{from}:")), "{answer:?}");
        }
        let status = haft.status();
        assert_eq!((status.accepted(), status.number("rescued")), (0, 0));
        assert_eq!(status.0["dispatch"], "kernel");
        assert!(status.0["note"].as_str().expect("a note").contains("without haft's seeing them"));
        haft.stop();
    }
}

#[test]
fn built_in_workers_and_several_listeners() {
    let mut haft = setup(&["-w", "2", "-l", "127.0.0.1:0", "-l", "127.0.0.1:0"]).without_command().start_all();
    let mut clients = Vec::new();
    for to in haft.addresses(2) {
        for slot in 0..2 {
            for from in addresses_of(slot, 2).take(10) {
                let mut client = Client::connect_from(from, to.parse().expect("an address")).expect("connect");
                client.send("/haft/page.json").expect("send");
                let page: serde_json::Value =
                    serde_json::from_str(&client.receive_body().expect("body")).expect("JSON");
                assert_eq!(page["worker"]["slot"].as_u64(), Some(slot as u64), "{page}");
                clients.push(client);
            }
        }
    }
    haft.wait("the workers tell how many they have", |status| opened(status) == [20, 20]);
    assert_eq!(haft.status().accepted(), 0);
    drop(clients);
    haft.stop();
}

#[test]
fn the_queue_of_a_killed_worker_is_served_by_its_replacement() {
    let mut haft = setup(&["-w", "2", "--hold-timeout", "1h", "--hang-timeout", "1h"]).start_all();
    let stopped = haft.stop_worker(0);
    let clients = ask(&haft, 0, 2, 200);
    haft.wait("all wait", |status| waiting(status, 0) == 200);
    signal(stopped, Signal::SIGKILL);
    let answers = answers(clients);
    assert!(answers.iter().all(|answer| (answer.slot, answer.worker) == (0, 3)), "{answers:?}");
    let status = haft.wait("it is ready", |status| status.all_ready());
    assert_eq!((status.accepted(), status.number("rescued"), waiting(&status, 0)), (0, 0, 0));
    haft.stop();
}

#[test]
fn the_queue_of_a_stopped_worker_is_served_by_others_until_it_goes_on() {
    let mut haft = setup(&["-w", "3", "--hold-timeout", "1h", "--hang-timeout", "1s"]).start_all();
    let stopped = haft.stop_worker(0);
    let clients = ask(&haft, 0, 3, 200);
    let served = answers(clients);
    let second = |at| addresses_of(0, 3).take(200).map(|from| order_of(from, 3)[1]).nth(at).expect("one");
    assert!(served.iter().enumerate().all(|(at, answer)| answer.slot == second(at)), "{served:?}");
    let status = haft.wait("they are settled", |status| status.in_flight() == 0);
    assert!(status.is(0, "hung"), "{status:?}");
    assert_eq!((status.number("hung"), status.number("hang_kills"), status.refused_in_all()), (1, 0, 0));
    let (taken, rescued) = (status.accepted(), status.number("rescued"));
    assert_eq!((taken, rescued), (200, 200));
    let (_, metrics) = haft.page("/metrics").expect("metrics");
    for line in ["haft_connections_rescued_total 200", "haft_accept_queue_length{slot=\"0\"} 0"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // Who comes meanwhile does not wait.
    assert_eq!(answers(ask(&haft, 0, 3, 1))[0].slot, second(0));

    signal(stopped, Signal::SIGCONT);
    haft.log().line_with("the worker acknowledges again");
    haft.wait("it is taken in again", |status| !status.is(0, "hung"));
    assert!(answers(ask(&haft, 0, 3, 5)).iter().all(|answer| answer.pid == stopped));
    haft.stop();
}

#[test]
fn a_worker_that_hangs_is_killed_on_demand_and_its_replacement_serves_the_queue() {
    let flags = ["-w", "2", "--hold-timeout", "1h", "--hang-timeout", "1s", "--hang-kill"];
    let mut haft = setup(&flags).start_all();
    haft.stop_worker(0);
    let answers = answers(ask(&haft, 0, 2, 20));
    assert!(answers.iter().all(|answer| (answer.slot, answer.worker) == (0, 3)), "{answers:?}");
    let status = haft.wait("it is ready", |status| status.all_ready());
    assert_eq!((status.number("hung"), status.number("hang_kills"), status.number("rescued")), (1, 1, 0));
    haft.stop();
}

#[test]
fn where_no_worker_comes_for_too_long_others_serve_the_queue_until_one_does() {
    let setup = setup(&["-w", "2", "--hold-timeout", "300ms"]).mode("gate");
    (1..=2).for_each(|worker| setup.open_gate(&format!("gate-{worker}")));
    let mut haft = setup.start_all();
    signal(haft.worker(0), Signal::SIGKILL);
    let served = answers(ask(&haft, 0, 2, 50));
    assert!(served.iter().all(|answer| (answer.slot, answer.worker) == (1, 2)), "{served:?}");
    haft.log().line_with("no worker takes the slot's clients");
    let status = haft.wait("they are settled", |status| status.in_flight() == 0);
    assert_eq!((status.number("rescued"), status.delivered()), (50, 50));
    haft.open_gate("gate-3");
    haft.wait("it is ready", |status| status.all_ready());
    assert!(answers(ask(&haft, 0, 2, 5)).iter().all(|answer| (answer.slot, answer.worker) == (0, 3)));
    haft.stop();
}

#[test]
fn where_nobody_else_could_take_them_they_wait_in_the_queue() {
    let mut haft = setup(&["-w", "1", "--hold-timeout", "0s", "--hang-timeout", "300ms"]).start_all();
    let stopped = haft.stop_worker(0);
    let clients = ask(&haft, 0, 1, 10);
    haft.wait("it is found to hang", |status| status.is(0, "hung"));
    assert_eq!(waiting(&haft.status(), 0), 10);
    signal(stopped, Signal::SIGCONT);
    assert_eq!(answers(clients).len(), 10);
    assert_eq!(haft.status().accepted(), 0);
    haft.stop();
}

#[test]
fn those_who_wait_when_haft_is_told_to_stop_are_served() {
    let mut haft = setup(&["-w", "2", "--drain-timeout", "1h", "--hold-timeout", "1h"]).start_all();
    let stopped = haft.stop_worker(0);
    let mut clients = ask(&haft, 0, 2, 60);
    haft.wait("all wait", |status| waiting(status, 0) == 60);
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    haft.log().line_with("SIGTERM: accepting stops");
    haft.wait("they are sent to it", |status| status.in_flight() == 60 && status.held() == 0);
    signal(stopped, Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(client.receive().expect("an answer and no reset").slot, 0);
        client.wait_for_end().expect("an orderly end");
    }
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.log().line_with("stopped: accepted 60, delivered 60, refused 0");
    haft.assert_nothing_left();
    // Another test may have been given the port meanwhile.
    eventually("nobody listens any more", || TcpListener::bind(haft.address()).ok());
}

#[test]
fn reloads_while_clients_come_lose_nobody_and_move_nobody() {
    const RELOADS: u64 = 2;
    let haft = setup(&["-w", "2", "--drain-timeout", "1h"]).start_all();
    let stays = |from, answer: Answer| assert_eq!(answer.slot, slot_of(from, 2));
    while_clients_come(&haft, stays, || {
        for reload in 1..=RELOADS {
            assert_eq!(haft.post("/reload").0, 202);
            eventually("it is done", || (haft.status().number("reloads_done") == reload).then_some(()));
        }
    });
    let status = eventually("the old ones are gone", || {
        Some(haft.status()).filter(|status| status.of_each("draining_workers") == [0; 2])
    });
    assert!(status.slots().all(|slot| slot["deaths_by_reason"] == json!({"exit code 0": RELOADS})), "{status:?}");
    assert_eq!((status.accepted(), status.of_each("generation")), (0, vec![RELOADS; 2]));
    haft.stop();
}

#[test]
fn a_reload_steers_by_another_prefix_and_among_as_many_as_it_says() {
    let file = |rest: &str| format!("listen: 127.0.0.1:0\nadmin: unix:{{dir}}/admin.sock\nworkers: 4\n{rest}");
    let with_kernel = file("dispatch: kernel\n");
    let mut haft = Setup::from_file(&with_kernel).start_all();
    let slots = |haft: &Haft| -> Vec<usize> {
        let from = (1..=40).map(|n| Ipv4Addr::new(127, 0, 7, n));
        from.map(|from| answers(vec![Client::asking(haft, from)])[0].slot).collect()
    };
    assert_eq!(slots(&haft), (1..=40).map(|n| slot_of(Ipv4Addr::new(127, 0, 7, n), 4)).collect::<Vec<_>>());
    haft.write_file(&file("dispatch: kernel\nipv4-prefix: 24\n").replace("workers: 4", "workers: 3"));
    let (code, text) = haft.post("/reload");
    assert!(code == 202 && !text.contains("restart"), "{code} {text}");
    haft.wait("it is done", |status| status.number("reloads_done") == 1 && status.slots().count() == 3);
    let together = slots(&haft);
    assert!(together.iter().all(|slot| *slot == together[0]), "{together:?}");
    // What the kernel cannot do is no more possible than at a start.
    haft.write_file(&file("affinity: none\n"));
    let (code, text) = haft.post("/reload");
    assert_eq!(code, 400, "{text}");
    assert!(text.contains("nothing was changed: affinity: --dispatch is kernel"), "{text}");
    haft.stop();
}

#[test]
fn when_the_master_is_killed_its_workers_let_go_of_the_port_and_finish() {
    let mut haft = setup(&["-w", "2", "--drain-timeout", "2m"]).start_all();
    let mut busy = half_asking(&mut haft);
    haft.note_workers();
    haft.signal(Signal::SIGKILL);
    haft.wait_for_exit();
    let next = next_on_the_port_of(&haft);
    assert!(answers(ask(&next, 0, 2, 3)).iter().all(|answer| answer.slot == 0));
    busy.iter_mut().for_each(is_answered);
    next.stop();
}

/// The guardian shuts the listeners of a worker that does not notice the master's death: its accept() then fails.
#[test]
fn so_does_a_worker_that_notices_the_death_late() {
    let mut haft = setup(&["-w", "2", "--drain-timeout", "2m"]).mode("deaf").start_all();
    let mut busy = half_asking(&mut haft);
    haft.note_workers();
    haft.open_gate("deaf");
    haft.signal(Signal::SIGKILL);
    haft.wait_for_exit();
    let next = next_on_the_port_of(&haft);
    haft.close_gate("deaf");
    busy.iter_mut().for_each(is_answered);
    next.stop();
}

/// A client of each of two slots, which has sent half of its request to its worker.
fn half_asking(haft: &mut Haft) -> Vec<Client> {
    let half = |slot| Client::half_asking(haft, addresses_of(slot, 2).next().expect("an address"));
    let busy = (0..2).map(half).collect();
    haft.wait("they are accepted", |status| opened(status) == [1, 1]);
    busy
}

fn is_answered(client: &mut Client) {
    client.write(b"\r\n").expect("the other half");
    assert_eq!(client.receive().expect("its answer").request, "GET /slow HTTP/1.1");
}

/// Another haft with the same address, as soon as that is free.
fn next_on_the_port_of(haft: &Haft) -> Haft {
    let to = haft.address();
    let next = setup(&["-w", "2", "-l", &to.to_string()]);
    eventually("the port is free", || TcpListener::bind(to).ok());
    let next = next.start_all();
    assert_eq!(next.address(), to);
    next
}

#[test]
fn a_port_that_another_haft_has_is_in_use() {
    let haft = setup(&["-w", "2"]).start_all();
    for flags in [&KERNEL[..], &[]] {
        let mut other = Setup::new(&[flags, &["-l", &haft.address().to_string()]].concat()).launch();
        assert_eq!(other.wait_for_exit().code(), Some(1));
        other.log().line_with("the port is in use");
    }
    haft.stop();
}

#[test]
fn a_program_that_does_not_accept_by_itself_is_named() {
    // It knows of no listeners, as one that was written before there were any.
    let flags = ["-w", "1", "--hang-timeout", "300ms"];
    let haft = setup(&flags).mode("unaware").start_all();
    let _waiting = ask(&haft, 0, 1, 1);
    haft.log().line_with("it answers and takes none: does its program accept from HAFT_LISTEN_FDS");
    assert!(!haft.status().is(0, "hung"));
    haft.stop();
}

/// With a Node program that asks for whatever port it may have, and answers with its process id.
pub fn node(flags: &[&str]) -> Haft {
    let setup = setup(flags);
    let program = "require('node:http').createServer((_, to) => to.end(String(process.pid))).listen(0);";
    std::fs::write(setup.folder().join("server.cjs"), program).expect("a file");
    setup.command(&["node", "{dir}/server.cjs"]).start_all()
}

pub fn pids(clients: Vec<Client>) -> Vec<u32> {
    let pid = |mut client: Client| client.receive_body().expect("an answer and no reset").parse().expect("a pid");
    clients.into_iter().map(pid).collect()
}

#[test]
fn node_workers_get_listeners_of_their_own_and_a_stopped_one_is_passed_over() {
    let mut haft = node(&["-w", "3", "--hold-timeout", "1h", "--hang-timeout", "1s"]);
    let workers: Vec<u32> = (0..3).map(|slot| haft.worker(slot)).collect();
    for (slot, worker) in workers.iter().enumerate() {
        assert_eq!(pids(ask(&haft, slot, 3, 20)), [*worker; 20]);
    }
    assert_eq!(haft.status().accepted(), 0);
    let stopped = haft.stop_worker(0);
    let served = pids(ask(&haft, 0, 3, 200));
    assert!(served.iter().all(|pid| workers[1..].contains(pid)), "{served:?}");
    let status = haft.wait("they are settled", |status| status.in_flight() == 0);
    assert_eq!((status.number("rescued"), status.number("hung"), status.delivered()), (200, 1, 200));
    signal(stopped, Signal::SIGCONT);
    haft.wait("it is taken in again", |status| !status.is(0, "hung"));
    assert_eq!(pids(ask(&haft, 0, 3, 5)), [stopped; 5]);
    haft.stop();
}

#[test]
fn the_queue_of_a_killed_node_worker_is_served_by_its_replacement() {
    let mut haft = node(&["-w", "2", "--hold-timeout", "1h", "--hang-timeout", "1h"]);
    let other = haft.worker(1);
    let stopped = haft.stop_worker(0);
    let clients = ask(&haft, 0, 2, 200);
    haft.wait("all wait", |status| waiting(status, 0) == 200);
    signal(stopped, Signal::SIGKILL);
    let served = pids(clients);
    let status = haft.wait("it is ready", |status| status.all_ready());
    assert!(served.iter().all(|pid| Some(*pid) == status.pid(0) && ![stopped, other].contains(pid)), "{served:?}");
    assert_eq!((status.accepted(), status.number("rescued")), (0, 0));
    haft.stop();
}

#[test]
fn a_node_program_without_the_preload_must_ask_for_the_port_that_it_can_have() {
    let mut haft = setup(&["-w", "1", "--no-preload"]).node().launch();
    haft.log().line_with(
        "with --dispatch kernel and --no-preload the program must ask for the port of --listen, or for port 0",
    );
    assert_eq!(haft.wait_for_exit().code(), Some(1));
}

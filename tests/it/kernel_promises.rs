//! What is promised of dispatch by the kernel, with real programs: Node's backlog, workers of another user, Puma, Go.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, addresses_of, eventually, signal, slot_of};
use crate::kernel_queues::{ask, pids, setup, waiting};

/// More than the programs say.
const CLIENTS: usize = 50;

#[test]
fn a_node_program_that_wants_a_short_queue_gets_that_of_haft() {
    let setup = setup(&["-w", "2", "--hold-timeout", "1h", "--hang-timeout", "1h"]);
    let program =
        "require('node:http').createServer((_, to) => to.end(String(process.pid))).listen({ port: 0, backlog: 2 });";
    fs::write(setup.folder().join("server.cjs"), program).expect("a file");
    let mut haft = setup.command(&["node", "{dir}/server.cjs"]).start_all();
    let stopped = haft.stop_worker(0);
    let clients = ask(&haft, 0, 2, CLIENTS);
    haft.wait("all wait", |status| waiting(status, 0) == CLIENTS as u64);
    signal(stopped, Signal::SIGCONT);
    assert_eq!(pids(clients), [stopped; CLIENTS]);
    haft.stop();
}

#[test]
fn workers_of_another_user_let_go_of_the_port_when_the_master_is_killed() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can run workers as another user");
        return;
    }
    let setup = setup(&["-w", "2"]);
    // As setpriv does, but after what this user may not read was read.
    let program = "process.setgroups([]); process.setgid(65534); process.setuid(65534);
        require('node:http').createServer((_, to) => to.end(String(process.pid))).listen(0);";
    fs::write(setup.folder().join("server.cjs"), program).expect("a file");
    let mut haft = setup.command(&["node", "{dir}/server.cjs"]).start_all();
    let (to, worker) = (haft.address(), haft.worker(0));
    let status = fs::read_to_string(format!("/proc/{worker}/status")).expect("a process");
    assert!(status.lines().any(|line| line.starts_with("Uid:\t65534")), "{status}");
    assert_eq!(pids(ask(&haft, 0, 2, 3)), [worker; 3]);
    haft.note_workers();
    haft.signal(Signal::SIGKILL);
    haft.wait_for_exit();
    eventually("the port is free", || TcpListener::bind(to).ok());
}

#[test]
fn puma_takes_its_listener_over() {
    let flags = ["-w", "3", "--dispatch", "kernel", "--dialect", "listen-fds"];
    let setup = Setup::new(&flags);
    let app = "run(lambda do |env|
      body = \"slot: #{ENV['HAFT_SLOT']}\\nworker: #{ENV['HAFT_WORKER']}\\npid: #{Process.pid}\\n\" \\
             \"client: #{env['REMOTE_ADDR']}\\nlistener: 0\\nrequest: #{env['PATH_INFO']}\\n\"
      [200, { 'Content-Length' => body.bytesize.to_s }, [body]]
    end)";
    fs::write(setup.folder().join("config.ru"), app).expect("a file");
    all_are_served_in_their_slots(
        setup.command(&["puma", "--bind-to-activated-sockets", "only", "{dir}/config.ru"]).start_all(),
    );
}

/// With the standard library alone, as the documentation shows it.
#[test]
fn a_go_program_takes_its_listener_over() {
    let flags = ["-w", "3", "--dispatch", "kernel", "--dialect", "listen-fds"];
    let setup = Setup::new(&flags);
    let server = r#"package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	listener, err := net.FileListener(os.NewFile(3, "haft0"))
	if err != nil {
		panic(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(to http.ResponseWriter, request *http.Request) {
		client, _, _ := net.SplitHostPort(request.RemoteAddr)
		fmt.Fprintf(to, "slot: %s\nworker: %s\npid: %d\nclient: %s\nlistener: 0\nrequest: %s\n",
			os.Getenv("HAFT_SLOT"), os.Getenv("HAFT_WORKER"), os.Getpid(), client, request.URL.Path)
	})}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		<-asked
		server.Shutdown(context.Background())
		close(ended)
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		panic(err)
	}
	<-ended
}
"#;
    fs::write(setup.folder().join("server.go"), server).expect("a file");
    let built = Command::new("go")
        .args(["build", "-o", "server", "server.go"])
        .current_dir(setup.folder())
        .envs([("CGO_ENABLED", "0"), ("GO111MODULE", "off"), ("GOFLAGS", "")])
        .env("GOCACHE", setup.folder().join("go-cache"))
        .status()
        .expect("go: install it (Debian: golang-go)");
    assert!(built.success());
    fs::remove_dir_all(setup.folder().join("go-cache")).expect("the cache");
    all_are_served_in_their_slots(setup.command(&["{dir}/server"]).start_all());
}

fn all_are_served_in_their_slots(haft: Haft) {
    for slot in 0..3 {
        for from in addresses_of(slot, 3).take(10) {
            let answer = Client::asking(&haft, from).receive().expect("an answer");
            assert_eq!((answer.slot, &answer.client), (slot_of(from, 3), &from.to_string()));
        }
    }
    assert_eq!(haft.status().accepted(), 0);
    haft.stop();
}

"""What must hold on every kernel: integration tests of tests/it, and sessions with Node. Runs in a virtual machine."""

import json
import os
import signal
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(__file__))
from clients import WebSocket, ask, eventually, polling_session

INTEGRATION = [
    "kernel::bypassed_slots",
    "kernel::a_dual_stack_listener",
    "kernel::as_much_of_an_address",
    "death::what_a_dead_worker_had_not_taken",
    "stickiness::every_connection",
    "reload::slot_by_slot",
]


def sessions_stay_with_their_worker(dispatch):
    """By session behind hand-over, by address behind kernel dispatch; the clients of a killed worker come again."""
    affinity = "session" if dispatch == "handover" else "ip"
    haft = subprocess.Popen(["haft", "-w", "3", "--dispatch", dispatch, "--affinity", affinity, "--admin", "unix:/tmp/haft.sock",
                             "--", "node", "server.cjs"], stderr=subprocess.PIPE, text=True)
    try:
        eventually("service", lambda: ask(4000)[0] == 200)
        processes = {int(ask(4000, source=f"127.0.1.{number}")[1]) for number in range(1, 40)}
        assert len(processes) == 3, processes
        if affinity == "session":
            for _ in range(3):
                statuses = polling_session(4000, [f"127.0.3.{number}" for number in range(1, 11)])
                assert statuses == [200] * 10, statuses
        sockets = {WebSocket(4000, f"127.0.2.{number}"): number for number in range(1, 10)}
        held = {socket: socket.say("before") for socket in sockets}
        killed = next(iter(held.values()))
        os.kill(killed, signal.SIGKILL)
        for socket, process in held.items():
            if process == killed:
                eventually("service again", lambda: WebSocket(4000, f"127.0.2.{sockets[socket]}").say("again") != killed)
            else:
                assert socket.say("after") == process
    finally:
        haft.send_signal(signal.SIGTERM)
        _, log = haft.communicate(timeout=60)
    assert haft.returncode == 0, log
    assert "panicked" not in log, log


def a_built_in_worker_is_confined():
    os.makedirs("/tmp/public", exist_ok=True)
    with open("/tmp/public/file", "w") as file:
        file.write("text")
    haft = subprocess.Popen(["haft", "-w", "1", "-l", "4001", "--static", "/tmp/public", "--admin", "unix:/tmp/haft-static.sock"],
                            stderr=subprocess.PIPE, text=True)
    try:
        eventually("service", lambda: ask(4001, "/file") == (200, "text"))
        status = json.loads(subprocess.check_output(["haft", "status", "--json", "--admin", "unix:/tmp/haft-static.sock"]))
        with open(f"/proc/{status['slots'][0]['pid']}/status") as file:
            state = file.read()
        assert "Seccomp:\t2" in state and "NoNewPrivs:\t1" in state, state
    finally:
        haft.send_signal(signal.SIGTERM)
        _, log = haft.communicate(timeout=60)
    assert "less confined" not in log, log


def main():
    print("kernel", os.uname().release, flush=True)
    began, failed = time.monotonic(), False
    done = subprocess.run(["/tests/it", "--test-threads=2", *INTEGRATION], stderr=subprocess.STDOUT)
    passed = 0
    for look in (lambda: sessions_stay_with_their_worker("handover"), lambda: sessions_stay_with_their_worker("kernel"), a_built_in_worker_is_confined):
        try:
            look()
            passed += 1
        except Exception:
            failed = True
            traceback.print_exc(file=sys.stdout)
    print(f"test result: ok. {passed} passed; {3 - passed} failed; 0 ignored; sessions with Node", flush=True)
    print(f"figure: kernel {os.uname().release}: {time.monotonic() - began:.0f} s", flush=True)
    print("@@rc", 1 if done.returncode or failed else 0, flush=True)


main()

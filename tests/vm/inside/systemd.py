"""haft's package below a real systemd. It runs as a unit of the virtual machine and ends the machine."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(__file__))
from clients import PATIENCE, WebSocket, answer, ask, connect, eventually, polling_session

HELD = 20
tests = []


def test(function):
    tests.append(function)
    return function


def run(*command, check=True):
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)
    assert not check or done.returncode == 0, f"{command}: exit code {done.returncode}: {done.stdout} {done.stderr}"
    return done.stdout.strip()


def show(unit, name):
    return run("systemctl", "show", unit, "--property", name, "--value")


def master(unit):
    return int(show(unit, "MainPID"))


def members(unit):
    """The processes in the unit's control group."""
    group = show(unit, "ControlGroup")
    if not group:
        return []
    try:
        with open(f"/sys/fs/cgroup{group}/cgroup.procs") as file:
            return [int(line) for line in file]
    except FileNotFoundError:
        return []


def status(folder):
    return json.loads(run("haft", "status", "--json", "--admin", f"unix:/run/{folder}/haft.sock"))


def workers(folder):
    return [slot["pid"] for slot in status(folder)["slots"]]


def chat(drain_timeout):
    with open("/etc/haft/chat.yaml", "w") as file:
        file.write(f"command: [node, server.cjs]\nworkers: 2\nstart-timeout: 5m\ndrain-timeout: {drain_timeout}\n")


def drop_in(unit, text):
    folder = f"/etc/systemd/system/{unit}.d"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/test.conf", "w") as file:
        file.write(text)
    run("systemctl", "daemon-reload")


@test
def start_returns_when_a_connection_would_be_served():
    run("systemctl", "start", "haft")
    assert ask(3000)[0] == 200
    assert show("haft", "Type") == "notify-reload"
    text = eventually("a status line", lambda: (text := show("haft", "StatusText")).startswith("2 of 2 workers") and text)
    print("  status line:", text)
    statuses = polling_session(3000, ["127.0.0.1"] * 4)
    assert statuses == [200] * 4, statuses


@test
def reload_returns_when_every_slot_has_its_new_worker_and_no_client_is_refused():
    before, process = workers("haft"), master("haft")
    reload = subprocess.Popen(["systemctl", "reload", "haft"])
    requests = 0
    while reload.poll() is None:
        assert ask(3000)[0] == 200
        requests += 1
    assert reload.returncode == 0 and requests > 0
    after = workers("haft")
    assert not set(before) & set(after) and len(after) == 2, (before, after)
    assert master("haft") == process and show("haft", "ActiveState") == "active"
    eventually("its generation in the status line", lambda: "generation 1" in show("haft", "StatusText"))


@test
def the_journal_has_the_log_and_what_workers_write():
    assert "worker is ready" in run("journalctl", "-u", "haft", "-o", "cat")
    # Longer than a master takes to start here: until then a killed one's workers end no session.
    chat("10m")
    run("systemctl", "start", "haft@chat")
    eventually("the workers' output", lambda: run("journalctl", "-u", "haft@chat", "-o", "cat").count("the program listens") >= 2)


@test
def the_watchdog_ends_a_master_that_is_stopped_and_systemd_starts_another():
    drop_in("haft.service", "[Service]\nWatchdogSec=6s\n")
    run("systemctl", "restart", "haft")
    stopped = master("haft")
    os.kill(stopped, signal.SIGSTOP)
    eventually("another master", lambda: master("haft") not in (0, stopped) and show("haft", "ActiveState") == "active")
    assert show("haft", "NRestarts") == "1"
    eventually("service", lambda: ask(3000)[0] == 200)
    assert stopped not in members("haft")


@test
def node_workers_keep_their_websockets_when_the_master_is_killed():
    sockets = [WebSocket(4000, f"127.0.0.{2 + number}") for number in range(HELD)]
    held = {socket: socket.say("before") for socket in sockets}
    killed, old = master("haft@chat"), set(workers("haft-chat"))
    assert set(held.values()) <= old
    os.kill(killed, signal.SIGKILL)
    eventually("another master", lambda: master("haft@chat") not in (0, killed) and show("haft@chat", "ActiveState") == "active")
    for socket, process in held.items():
        assert socket.say("after") == process
    new = set(workers("haft-chat"))
    assert not new & old
    assert eventually("service by a new worker", lambda: int(ask(4000)[1]) in new)
    for socket in sockets:
        socket.close()
    chat("5s")
    eventually("the old workers end", lambda: not old & set(members("haft@chat")))


@test
def the_kernels_kill_for_want_of_memory_is_named():
    drop_in("haft@chat.service", "[Service]\nMemoryMax=400M\nMemorySwapMax=0\n")
    run("systemctl", "restart", "haft@chat")
    eaten = int(ask(4000)[1])
    with connect(4000) as stream:
        stream.sendall(b"GET /eat HTTP/1.1\r\nHost: haft\r\n\r\n")
        eventually("its death", lambda: eaten not in members("haft@chat"))
    line = eventually("its reason", lambda: re.search(".*out of memory.*", run("journalctl", "-u", "haft@chat", "-o", "cat")))
    print("  journal:", line[0])
    assert show("haft@chat", "NRestarts") == "0"
    eventually("service", lambda: ask(4000)[0] == 200)


@test
def stop_ends_within_its_time_and_leaves_nothing():
    sockets = [WebSocket(4000) for _ in range(4)]
    began = time.monotonic()
    run("systemctl", "stop", "haft@chat")
    print(f"  systemctl stop with 4 WebSockets: {time.monotonic() - began:.1f} s")
    assert show("haft@chat", "Result") == "success" and show("haft@chat", "ActiveState") == "inactive"
    assert members("haft@chat") == []
    stop = run("journalctl", "-u", "haft@chat", "-o", "cat").rpartition("accepting stops")[2]
    assert stop and "SIGKILL" not in stop, stop
    for socket in sockets:
        socket.close()


@test
def a_socket_unit_listens_before_haft_does():
    run("systemctl", "stop", "haft")
    run("systemctl", "start", "haft.socket")
    assert show("haft", "ActiveState") == "inactive"
    with connect(3000) as early:
        code, _ = answer(early)
    assert code == 200 and show("haft", "ActiveState") == "active"
    # While haft is away, its clients wait in the socket's queue.
    run("systemctl", "stop", "haft")
    with connect(3000) as waiting:
        run("systemctl", "start", "haft")
        assert answer(waiting)[0] == 200
    run("systemctl", "stop", "haft.socket", "haft")


@test
def the_units_are_locked_up():
    for unit in ("haft.service", "haft@chat.service"):
        line = run("systemd-analyze", "security", "--no-pager", "--threshold=20", unit).splitlines()[-1]
        print(" ", line)
        assert run("systemd-analyze", "security", "--no-pager", "--threshold=20", unit) is not None


def main():
    # Units of the boot itself come first.
    run("systemctl", "is-system-running", "--wait", check=False)
    print("kernel", os.uname().release, run("systemctl", "--version").splitlines()[0], flush=True)
    failed = 0
    for function in tests:
        name, began = function.__name__.replace("_", " "), time.monotonic()
        try:
            function()
            print(f"ok {name} ({time.monotonic() - began:.0f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
            for unit in ("haft", "haft@chat"):
                print(f"--- journal of {unit}\n" + run("journalctl", "-u", unit, "-n", "40", "-o", "short-monotonic", check=False), flush=True)
    print(f"test result: ok. {len(tests) - failed} passed; {failed} failed; 0 ignored;")
    print("@@rc", 1 if failed else 0, flush=True)


try:
    main()
finally:
    subprocess.run(["systemctl", "poweroff", "--force", "--force"])

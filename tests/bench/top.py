"""What `haft top` costs: the time to its first screen, and the master's memory with it attached.

    python3 tests/bench/top.py HAFT [SLOTS ROUNDS]      (64 20)

haft runs with as many built-in workers as SLOTS. The time is from fork to the first screen with the table's headings, on a
terminal of 120 columns and 40 lines.
"""
import fcntl
import json
import os
import pty
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time

HAFT = sys.argv[1]
SLOTS, ROUNDS = (int(word) for word in (sys.argv[2:] or (64, 20)))
SECONDS = 20  # that it stays attached
SETTLING = 7  # until the code of the start is not in memory any more


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def ready(path):
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(path)
            asked.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            text = b"".join(iter(lambda: asked.recv(65536), b""))
        return all(slot["state"] == "ready" for slot in json.loads(text.split(b"\r\n\r\n", 1)[1])["slots"])
    except (OSError, ValueError, IndexError):
        return False


def top(path):
    """Starts it; yields its process, its terminal, and the milliseconds to the first screen."""
    began = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        os.execv(HAFT, [HAFT, "top", "--admin", f"unix:{path}"])
    shown = b""
    while b"SLOT" not in shown:
        shown += os.read(terminal, 65536)
    return pid, terminal, (time.monotonic() - began) * 1000


def end(pid, terminal):
    os.write(terminal, b"q")
    while True:
        try:
            if not os.read(terminal, 65536):
                break
        except OSError:
            break
    os.waitpid(pid, 0)
    os.close(terminal)


with tempfile.TemporaryDirectory() as folder:
    path = f"{folder}/admin"
    haft = subprocess.Popen(
        [HAFT, "-w", str(SLOTS), "-l", "127.0.0.1:0", "--admin", f"unix:{path}"], stderr=subprocess.DEVNULL
    )
    while not ready(path):
        time.sleep(0.1)
    time.sleep(SETTLING)
    before, times = resident(haft.pid), []
    for _ in range(ROUNDS):
        *process, took = top(path)
        times.append(took)
        end(*process)
    *process, _ = top(path)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        os.read(process[1], 65536)
    attached = resident(haft.pid)
    end(*process)
    haft.send_signal(signal.SIGTERM)
    haft.wait()
print(f"first screen: median {statistics.median(times):.0f} ms, {min(times):.0f} to {max(times):.0f}, of {ROUNDS}")
print(f"master with {SLOTS} workers: {before:.1f} MiB, after {SECONDS} s of haft top: {attached:.1f} MiB")

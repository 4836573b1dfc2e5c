"""Keeps a listening socket, as systemd does for a socket unit, and gives it to one master after another.

    python3 tests/chaos/listener.py keep SOCKET                    prints its port, until it is ended
    python3 tests/chaos/listener.py take SOCKET PROGRAM [ARGUMENT]...    becomes the program, with LISTEN_FDS
"""

import os
import socket
import sys

FIRST = 3
BACKLOG = 4096


def keep(path):
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen()
    print(f"keeps port {listener.getsockname()[1]}", flush=True)
    while True:
        asker, _ = door.accept()
        socket.send_fds(asker, [b"."], [listener.fileno()])
        asker.close()


def take(path, program):
    door = socket.socket(socket.AF_UNIX)
    door.connect(path)
    _, (given,), _, _ = socket.recv_fds(door, 1, 1)
    door.close()
    if given != FIRST:
        os.dup2(given, FIRST)
        os.close(given)
    os.set_inheritable(FIRST, True)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = "1"
    os.execvp(program[0], program)


order, where, *rest = sys.argv[1:]
keep(where) if order == "keep" else take(where, rest)

"""Becomes a program with listening sockets as systemd passes them.

    python3 tests/it/activate.py FOLDER NAME=KIND... -- PROGRAM [ARGUMENTS]...

KIND is `tcp` (a port of 127.0.0.1), `unix` (FOLDER/NAME.sock), `abstract`, `udp`, or `connection`. FOLDER/NAME.port has the
port. The program starts when there is FOLDER/gate-start.
"""

import os
import socket
import sys
import time

FIRST = 3


def write(path, text):
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def main():
    folder, *rest = sys.argv[1:]
    end = rest.index("--")
    specs, program = rest[:end], rest[end + 1 :]
    sockets = []
    for name, kind in (spec.split("=") for spec in specs):
        if kind == "tcp":
            made = socket.create_server(("127.0.0.1", 0))
            write(f"{folder}/{name}.port", str(made.getsockname()[1]))
        elif kind == "udp":
            made = socket.socket(type=socket.SOCK_DGRAM)
            made.bind(("127.0.0.1", 0))
        elif kind == "connection":
            server = socket.create_server(("127.0.0.1", 0))
            made = socket.create_connection(server.getsockname())
        else:
            made = socket.socket(socket.AF_UNIX)
            made.bind(f"{folder}/{name}.sock" if kind == "unix" else f"\0{folder}/{name}")
            made.listen()
        sockets.append(made)
    while not os.path.exists(f"{folder}/gate-start"):
        time.sleep(0.005)
    # First out of the way, since one may have the number of another.
    high = [os.dup(made.fileno()) for made in sockets]
    high = [os.dup2(number, 100 + at) for at, number in enumerate(high)]
    for at, number in enumerate(high):
        os.dup2(number, FIRST + at, inheritable=True)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(sockets))
    os.environ["LISTEN_FDNAMES"] = ":".join(spec.split("=")[0] for spec in specs)
    os.execvp(program[0], program)


main()

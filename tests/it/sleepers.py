"""Workers whose sockets make whoever closes the last copy sleep for an hour.

    python3 tests/it/sleepers.py FOLDER DIALECT

Such a socket has SO_LINGER and data that its peer does not read. What is bad is done by the worker of slot 0 only, and
once it is done there is a file `done` in FOLDER; the others are plain.

    answers    a worker of haft's: answers each connection so, closes it, and acknowledges it then
    breaks     a worker of haft's: sends such sockets of its own with an acknowledgement, which must not have any
    node       a program of Node's, as far as the master sees: sends such sockets over its channel
    notify     a program that takes a listener over: sends such sockets with what it says to NOTIFY_SOCKET
"""

import array
import os
import signal
import socket
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples"))

from worker import HEADER, TAKEN, VERSION, Worker

FOLDER, DIALECT = sys.argv[1:]
AN_HOUR = struct.pack("ii", 1, 3600)


def done():
    open(os.path.join(FOLDER, "done"), "w").close()


def prepare(stream):
    """Its last close sleeps, as long as nobody reads at the other end."""
    stream.setblocking(False)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AN_HOUR)
    # The kernel's memory is for other tests, too.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    try:
        while True:
            stream.send(bytes(1 << 16))
    except BlockingIOError:
        pass


def sleepers(count, peers=[]):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(count):
            peer = socket.socket()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            peer.connect(listener.getsockname())
            peers.append(peer)
            stream, _ = listener.accept()
            prepare(stream)
            yield stream


def send_away(channel, text, address=None, times=3):
    """Such sockets with a message, of which this process keeps none."""
    for _ in range(times):
        streams = list(sleepers(40))
        numbers = array.array("i", [stream.fileno() for stream in streams])
        to = [address] if address else []
        # Or else the last close could be ours.
        os.kill(os.getppid(), signal.SIGSTOP)
        while open(f"/proc/{os.getppid()}/stat").read().rsplit(") ")[1][0] != "T":
            pass
        channel.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)], 0, *to)
        [stream.close() for stream in streams]
        os.kill(os.getppid(), signal.SIGCONT)
        done()


class Answers(Worker):
    def take(self, entries, numbers):
        for number in numbers:
            stream = socket.socket(fileno=number)
            prepare(stream)
            stream.close()
        self.received = entries[-1][0] + 1
        self.taken()
        done()


class Breaks(Worker):
    def take(self, entries, numbers):
        # Once only: for the first the master ends us.
        send_away(self.channel, HEADER.pack(VERSION, TAKEN, 0, 0) + bytes(20), times=1)
        signal.pause()


def node():
    channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
    send_away(channel, b'{"a":1}\n')
    signal.pause()


def notify():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        send_away(to, b"STATUS=here", os.environ["NOTIFY_SOCKET"])
    signal.pause()


if os.environ["HAFT_WORKER"] != "1":
    Worker().run() if DIALECT in ("answers", "breaks") else signal.pause()
{"answers": lambda: Answers().run(), "breaks": lambda: Breaks().run(), "node": node, "notify": notify}[DIALECT]()

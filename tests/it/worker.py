"""Workers that behave well, slowly, or badly: examples/worker.py with one thing changed.

    python3 tests/it/worker.py FOLDER MODE[:DETAIL]

FOLDER is the test's own: a worker waits for a file that the test makes there, or makes one that the test waits for. What
breaks the rules is done by the first worker of slot 0 only, its replacement and the other slots are plain; what a test
asks for by a file or a request is done by every worker (see the end of this file).
"""

import itertools
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples"))

from worker import ENTRY, HEADER, READY, RETURNED, TAKEN, VERSION, Worker

TAGS = 1

FOLDER = sys.argv[1]
MODE, _, DETAIL = sys.argv[2].partition(":")


def path(name):
    return os.path.join(FOLDER, name)


def wait_for(name):
    while not os.path.exists(path(name)):
        time.sleep(0.005)


class Gated(Worker):
    """Is ready when there is a file gate-N, N being the worker's number, which counts from 1 over all slots."""

    def run(self):
        wait_for(f"gate-{self.number}")
        super().run()


class Sick(Worker):
    """Does not become ready while there is a file sick-K, K being its slot: says why, and ends."""

    def run(self):
        if os.path.exists(path(f"sick-{self.slot}")):
            raise SystemExit(f"slot {self.slot}: the new version is broken")
        super().run()


class Fated(Worker):
    """Ends as it is asked to: by /exit/CODE, by /signal/NAME, or by taking memory without end."""

    def respond(self, client, head):
        _, what, *detail = head.split(b" ")[1].decode().split("/")
        if what == "exit":
            os._exit(int(detail[0]))
        if what == "signal":
            os.kill(os.getpid(), getattr(signal, detail[0]))
        if what == "grow":
            taken = []
            while True:
                taken.append(b"x" * (1 << 20))
        return super().respond(client, head)


class Absent(Worker):
    """Says that it is ready and never looks at its channel."""

    def say(self, kind, layout, *numbers):
        super().say(kind, layout, *numbers)
        signal.pause()


class Mute(Worker):
    """Receives DETAIL connections, acknowledges none of them, and stops."""

    held = []

    def take(self, entries, numbers):
        self.held += numbers
        if len(self.held) >= int(DETAIL):
            os.kill(os.getpid(), signal.SIGSTOP)


class Liar(Worker):
    """Promises room for many and then has descriptors for only DETAIL more."""

    def say(self, kind, layout, *numbers):
        super().say(kind, layout, *numbers)
        if kind == READY:
            # A limit is a bound on the number itself: the least that leaves DETAIL numbers free.
            used = {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}
            free = [number for number in range(1000) if number not in used]
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free[int(DETAIL)], hard))

    def promise(self):
        return max(self.limit, self.received + 1000)


class Deaf(Worker):
    """Does not listen to the master while there is a file `deaf`."""

    def receive(self):
        while os.path.exists(path("deaf")):
            time.sleep(0.005)
        super().receive()


class Unaware(Worker):
    """Knows nothing of listeners of its own, as a worker that was written before there were any."""

    def __init__(self):
        os.environ.pop("HAFT_LISTEN_FDS")
        super().__init__()


class Shut(Worker):
    """Is ready, and when there is a file `shut` closes its end for what comes, or both ways, or its descriptor only."""

    def say(self, kind, layout, *numbers):
        super().say(kind, layout, *numbers)
        wait_for("shut")
        if DETAIL == "descriptor":
            self.channel.close()
        else:
            self.channel.shutdown(socket.SHUT_RD if DETAIL == "read" else socket.SHUT_RDWR)
        open(path("is-shut"), "w").close()
        signal.pause()


class Hostile(Worker):
    """Says, in place of its first acknowledgement, what must not be said, and waits for its end."""

    def say(self, kind, layout, *numbers):
        if kind == READY:
            # It is trusted with all that a worker may be: it tags its sessions.
            self.channel.send(HEADER.pack(VERSION, READY, 0, TAGS) + numbers[0].to_bytes(8, "little"))
        else:
            super().say(kind, layout, *numbers)

    def take(self, entries, numbers):
        first = entries[0][0]
        getattr(self, DETAIL.replace("-", "_"))(first, numbers)
        signal.pause()

    def send(self, kind, body=b"", version=VERSION):
        self.channel.send(HEADER.pack(version, kind, 0, 0) + body)

    def wrong_version(self, *_):
        self.send(TAKEN, bytes(20), version=9)

    def unknown_kind(self, *_):
        self.send(77)

    def kind_of_the_master(self, *_):
        self.send(1, bytes(ENTRY.size))

    def too_long(self, *_):
        self.send(TAKEN, bytes(5000))

    def too_short(self, *_):
        self.channel.send(b"\x01")

    def empty(self, *_):
        self.channel.send(b"")

    def taken_beyond(self, first, _):
        self.say(TAKEN, "QQI", first + 1000, self.limit, 0)

    def limit_lowered(self, first, _):
        self.say(TAKEN, "QQI", first, self.limit - 1, 0)

    def ready_twice(self, *_):
        self.say(READY, "Q", self.limit)

    def returned_twice(self, first, _):
        self.say(RETURNED, "QI", first, 1)
        self.say(RETURNED, "QI", first, 1)

    def returned_unsent(self, first, _):
        self.say(RETURNED, "QI", first, 1000)

    def with_descriptors(self, first, numbers):
        frame = HEADER.pack(VERSION, TAKEN, 0, 0) + first.to_bytes(8, "little") + self.limit.to_bytes(8, "little") + bytes(4)
        socket.send_fds(self.channel, [frame], numbers)

    def returned_with(self, first, numbers):
        frame = HEADER.pack(VERSION, RETURNED, 0, 0) + first.to_bytes(8, "little") + (1).to_bytes(4, "little")
        socket.send_fds(self.channel, [frame], numbers)

    def returned_with_its_own(self, first, numbers):
        self.returned_with(first, numbers)

    def returned_with_null(self, first, _):
        self.returned_with(first, [os.open("/dev/null", os.O_RDWR)])

    def returned_with_a_listener(self, first, _):
        self.returned_with(first, [socket.create_server(("127.0.0.1", 0)).detach()])

    def returned_with_a_pipe(self, first, _):
        self.returned_with(first, os.pipe())

    def returned_with_many(self, first, _):
        self.returned_with(first, [0] * 253)

    def given_another_s(self, *_):
        """For slot 1, nine times, in a frame of a kind that there was once: /dev/null as a client's connection."""
        null = os.open("/dev/null", os.O_RDWR)
        body = (0).to_bytes(2, "little") + (1).to_bytes(2, "little") + bytes(4) + bytes(48)
        for _ in range(9):
            try:
                socket.send_fds(self.channel, [HEADER.pack(VERSION, 133, 0, 0) + body], [null])
            except BrokenPipeError:
                return


class Hasty(Worker):
    """Acknowledges before it says that it is ready."""

    def say(self, kind, layout, *numbers):
        super().say(TAKEN, "QQI", 0, 0, 0)
        super().say(kind, layout, *numbers)


class Shouting(Worker):
    """Writes to standard error beside its work: slot 0 without end, the others a short line now and then."""

    def run(self):
        threading.Thread(target=self.shout, daemon=True).start()
        super().run()

    def shout(self):
        for number in itertools.count():
            if int(self.slot) == 0:
                os.write(2, b"x" * 32_000 + b"\n")
            else:
                os.write(2, f"quiet line {number}\n".encode())
                time.sleep(0.01)


class Telling(Worker):
    """Tells in its page of the scoreboard, once, that it has 40 open connections, and one more for each slot."""

    def run(self):
        number, device, inode = map(int, os.environ.pop("HAFT_SCOREBOARD").split(":"))
        found = os.fstat(number)
        assert (found.st_dev, found.st_ino) == (device, inode)
        os.set_inheritable(number, False)
        words = [0] * 64
        words[0] = int.from_bytes(b"haftsb01", "little")
        words[1] = words[63] = 1
        words[2] = int(time.time() * 1000)
        words[4:33] = [2**64 - 1] * 29
        words[4] = 40 + int(self.slot)
        os.pwrite(number, struct.pack("<64Q", *words), 0)
        super().run()


EVERY_WORKER = {
    "plain": Worker, "gate": Gated, "deaf": Deaf, "sick": Sick, "fated": Fated, "unaware": Unaware, "shouting": Shouting,
    "scoreboard": Telling,
}
FIRST_WORKER = {"mute": Mute, "absent": Absent, "liar": Liar, "shut": Shut, "hostile": Hostile, "hasty": Hasty}

if __name__ == "__main__":
    is_first = os.environ["HAFT_WORKER"] == "1"
    EVERY_WORKER.get(MODE, FIRST_WORKER.get(MODE) if is_first else Worker)().run()

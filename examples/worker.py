#!/usr/bin/env python3
"""A worker of haft's in Python, standard library only:  haft -w 4 -- python3 examples/worker.py

Written from docs/protocol.md, whose words it uses. It answers each HTTP request
with the worker that served it and keeps connections open: one process, one thread, many clients.
"""

import array
import errno
import os
import resource
import selectors
import signal
import socket
import struct

VERSION, CONNECTIONS, DRAIN, PING, READY, TAKEN, RETURNED = 1, 1, 2, 4, 129, 130, 131
HEADER = struct.Struct("<BBHI")  # version, kind, count of entries, reserved
ENTRY = struct.Struct("<QH6x24s24s")  # sequence number, listener, the client's address, the address at our end
ADDRESS = struct.Struct("<BxH16sI")  # family, port, address, scope
MAX_DESCRIPTORS = 253  # in one frame
MAX_FRAME = HEADER.size + MAX_DESCRIPTORS * ENTRY.size
MAX_REQUEST = 64 * 1024
WINDOW = 1024  # most connections promised at once
RESERVE = 64  # descriptors that are not for connections: Python's own, files, sockets to elsewhere


def address(packed):
    """An address of an entry, for people."""
    family, port, ip, _scope = ADDRESS.unpack(packed)
    if family == 4:
        return f"{socket.inet_ntop(socket.AF_INET, ip[:4])}:{port}"
    if family == 6:
        return f"[{socket.inet_ntop(socket.AF_INET6, ip)}]:{port}"
    return "unix"


def address_of(peer):
    """An address as the kernel reports it, for people. An IPv4 client of a listener for both is an IPv4 client."""
    ip = peer[0].removeprefix("::ffff:") if "." in peer[0] else peer[0]
    return f"[{ip}]:{peer[1]}" if ":" in ip else f"{ip}:{peer[1]}"


def descriptors(control):
    """The descriptors that came with a message, in their order."""
    numbers = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return list(numbers)


class Client:
    """One connection: requests come in, answers go out."""

    def __init__(self, worker, stream, name, listener):
        self.worker, self.stream, self.name, self.listener = worker, stream, name, listener
        self.stream.setblocking(False)
        self.asked, self.answer, self.answered, self.last = b"", b"", False, False

    def serve(self):
        """Something came, or there is room for more of the answer."""
        if self not in self.worker.open:
            return  # Closed by an event of the same turn.
        try:
            if not self.answer:
                more = self.stream.recv(64 * 1024)
                self.asked += more
                if not more or len(self.asked) > MAX_REQUEST:
                    return self.close()
            while self.answer or b"\r\n\r\n" in self.asked:
                if not self.answer:
                    head, _, self.asked = self.asked.partition(b"\r\n\r\n")
                    self.last = self.worker.leaving or b"\r\nconnection: close" in head.lower()
                    self.answer = self.worker.respond(self, head)
                self.answer = self.answer[self.stream.send(self.answer) :]
                self.answered = not self.answer
        except BlockingIOError:
            pass
        except OSError:
            return self.close()
        if self.is_idle() and (self.last or self.worker.leaving):
            return self.close()
        wanted = selectors.EVENT_WRITE if self.answer else selectors.EVENT_READ
        self.worker.selector.modify(self.stream, wanted, self.serve)

    def is_idle(self):
        """Whether every request was answered. A connection that has asked nothing yet is not idle: it will."""
        return self.answered and not self.asked and not self.answer

    def close(self):
        self.worker.selector.unregister(self.stream)
        self.worker.open.discard(self)
        try:
            # The master may still have its copy: closing ours alone would not end the connection.
            self.stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The client has ended it.
        self.stream.close()


class Worker:
    """The channel to the master, and the connections that came through it."""

    def __init__(self):
        self.slot, self.number = os.environ.pop("HAFT_SLOT"), os.environ.pop("HAFT_WORKER")
        self.channel = socket.socket(fileno=int(os.environ.pop("HAFT_CHANNEL_FD")))
        self.channel.set_inheritable(False)
        self.channel.setblocking(True)  # for sending; receiving never waits (MSG_DONTWAIT)
        numbers = os.environ.pop("HAFT_LISTEN_FDS", "").split(",")  # with --dispatch kernel
        self.listeners = [socket.socket(fileno=int(number)) for number in numbers if number]
        for listener in self.listeners:
            listener.set_inheritable(False)
        self.master = os.getppid()
        self.selector, self.open, self.leaving = selectors.DefaultSelector(), set(), False
        self.received = self.limit = self.reported = 0

    def run(self):
        self.selector.register(self.channel, selectors.EVENT_READ, self.receive)
        self.listen_for_sigterm()
        self.limit = self.promise()
        self.say(READY, "Q", self.limit)
        for number, listener in enumerate(self.listeners):
            self.selector.register(listener, selectors.EVENT_READ, lambda at=number: self.accept(at))
        while self.open or not self.leaving:
            # A changed number of connections is reported to the master once a second, or with the next TAKEN.
            events = self.selector.select(None if self.reported == len(self.open) else 1.0)
            for key, _ in events:
                key.data()
            short = self.limit - self.received < WINDOW // 2
            if not self.leaving and (not events or (short and self.limit < self.promise())):
                self.taken()

    def promise(self):
        """The first sequence number that there would be no descriptor for. A promise is never taken back."""
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(self.limit, self.received + min(WINDOW, most - RESERVE - len(self.open)))

    def say(self, kind, layout, *numbers):
        try:
            self.channel.send(HEADER.pack(VERSION, kind, 0, 0) + struct.pack("<" + layout, *numbers))
        except (BrokenPipeError, ConnectionResetError):
            pass  # The master is gone: what it sent is ours alone.

    def taken(self):
        self.limit, self.reported = self.promise(), len(self.open)
        self.say(TAKEN, "QQI", self.received, self.limit, self.reported)

    def receive(self):
        """Takes one frame from the master."""
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            frame, control, _, _ = self.channel.recvmsg(MAX_FRAME, socket.CMSG_SPACE(MAX_DESCRIPTORS * 4), flags)
        except (BlockingIOError, ConnectionResetError):
            return  # Reset: the master died before it had read all that we sent; what it had sent comes next.
        if not frame:
            for number in range(len(self.listeners)):
                while self.accept(number):
                    pass  # No other process will.
            return self.leave()
        version, kind, _count, _ = HEADER.unpack_from(frame)
        if version != VERSION:
            raise SystemExit(f"haft speaks version {version} of the hand-over protocol, this worker version {VERSION}")
        if kind == CONNECTIONS:
            self.take(list(ENTRY.iter_unpack(frame[HEADER.size :])), descriptors(control))
        elif kind == DRAIN:
            self.leave()
        elif kind == PING:
            self.taken()

    def accept(self, number):
        """Accepts one of the clients that the kernel assigned to this worker, if another worker was not quicker."""
        if self.leaving:
            return False  # Asked to by an event of the same turn.
        try:
            stream, peer = self.listeners[number].accept()
        except OSError as error:
            # EINVAL: the master is dead and its port was freed before this process noticed; the channel ends, too.
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED, errno.EINVAL):
                return False
            raise
        client = Client(self, stream, address_of(peer), number)
        self.open.add(client)
        self.selector.register(client.stream, selectors.EVENT_READ, client.serve)
        return True

    def take(self, entries, numbers):
        """Acknowledges connections, and only then begins to read from them."""
        missing = entries[len(numbers) :]  # MSG_CTRUNC: this process was short of descriptors.
        if missing:
            self.say(RETURNED, "QI", missing[0][0], len(missing))
        streams = [socket.socket(fileno=number) for number in numbers]
        clients = [Client(self, stream, address(entry[2]), entry[1]) for stream, entry in zip(streams, entries)]
        self.open.update(clients)
        self.received = entries[-1][0] + 1
        self.taken()
        for client in clients:
            self.selector.register(client.stream, selectors.EVENT_READ, client.serve)

    def leave(self):
        """Takes no more connections and finishes those it has."""
        if not self.leaving:
            self.leaving = True
            for leaving in [self.channel, *self.listeners]:
                self.selector.unregister(leaving)
            for listener in self.listeners:
                listener.close()
            self.listeners = []
            for client in [client for client in self.open if client.is_idle()]:
                client.close()

    def listen_for_sigterm(self):
        """A signal becomes something to read, so that it is handled between two events and not within one."""
        wakeup, handler = socket.socketpair()
        wakeup.setblocking(False)
        handler.setblocking(False)
        signal.set_wakeup_fd(handler.fileno())
        signal.signal(signal.SIGTERM, lambda *_: None)

        def heard():
            wakeup.recv(64)
            handler.fileno()  # Keeps it open.
            if os.getppid() != self.master:
                return  # The master died; the end of the stream comes after what it had sent.
            if self.leaving:
                raise SystemExit(0)  # Asked before: the time for finishing is over.
            self.leave()  # Another process ends this worker; what the channel still holds goes to another.

        self.selector.register(wakeup, selectors.EVENT_READ, heard)

    def respond(self, client, head):
        request = head.split(b"\r\n", 1)[0].decode("latin-1")
        body = f"slot: {self.slot}\nworker: {self.number}\npid: {os.getpid()}\n"
        body += f"client: {client.name}\nlistener: {client.listener}\nrequest: {request}\n"
        fate = "close" if client.last else "keep-alive"
        # One byte a character, as the request was decoded.
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: {fate}\r\n\r\n"
        return (head + body).encode("latin-1")


if __name__ == "__main__":
    Worker().run()

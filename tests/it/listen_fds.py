"""A server that takes its listeners over as from systemd, in Python's standard library.

    python3 tests/it/listen_fds.py FOLDER [notify]

It knows nothing of haft but what it answers with: who served, at which listener. On SIGTERM it closes its listeners,
answers what it was asked, and ends. With `notify` it says READY=1 once there is a file `gate-SLOT` in FOLDER.
"""

import os
import ctypes
import selectors
import signal
import socket
import struct
import sys
import time

FOLDER, NOTIFIES = sys.argv[1], "notify" in sys.argv


def notify(text):
    name = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(text.encode(), "\0" + name[1:] if name[0] == "@" else name)


def inherited():
    """As sd_listen_fds(3) says: only if they are meant for this very process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise SystemExit(f"LISTEN_PID is {os.environ.get('LISTEN_PID')}, this is {os.getpid()}")
    count = int(os.environ["LISTEN_FDS"])
    names = os.environ["LISTEN_FDNAMES"].split(":")
    if len(names) != count:
        raise SystemExit(f"{count} listeners and the names {names}")
    return [socket.socket(fileno=3 + number) for number in range(count)], names


def attach(listener, place):
    """Has this place of the group get all clients (SO_ATTACH_REUSEPORT_CBPF)."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, place))
    listener.setsockopt(socket.SOL_SOCKET, 51, struct.pack("HxxxxxxQ", 1, ctypes.addressof(program)))


def spoil(listener, how):
    """Does to its listener what a worker must not. Says how it went."""
    try:
        if how == "shutdown":
            listener.shutdown(socket.SHUT_RDWR)
        elif how == "again":
            listener.shutdown(socket.SHUT_RD)
            listener.listen(16)
        elif how == "detach":
            listener.setsockopt(socket.SOL_SOCKET, 68, 0)
        elif how == "attach":
            attach(listener, 1)
        elif how == "join":
            global joined
            joined = socket.socket(listener.family)
            joined.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            joined.bind(listener.getsockname())
            joined.listen(16)
            attach(joined, 1)
        elif how == "disconnect":
            # connect(2) to AF_UNSPEC.
            ctypes.CDLL(None).connect(listener.fileno(), bytes(16), 16)
        elif how == "connect":
            listener.shutdown(socket.SHUT_RD)
            other = socket.create_server(("127.0.0.1", 0))
            listener.connect_ex(other.getsockname())
    except OSError as error:
        return str(error)
    return "done"


class Server:
    def __init__(self):
        self.listeners, self.names = inherited()
        self.selector, self.open, self.leaving = selectors.DefaultSelector(), {}, False
        for number, listener in enumerate(self.listeners):
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ, lambda at=number: self.accept(at))
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "leaving", True))

    def run(self):
        while self.open or not self.leaving:
            for key, _ in self.selector.select(0.05):
                key.data()
            if self.leaving and self.listeners:
                for listener in self.listeners:
                    self.selector.unregister(listener)
                    listener.close()
                self.listeners = []

    def accept(self, number):
        try:
            stream, _ = self.listeners[number].accept()
        except OSError:
            return
        stream.setblocking(False)
        self.open[stream] = b""
        self.selector.register(stream, selectors.EVENT_READ, lambda: self.serve(stream, number))

    def serve(self, stream, number):
        try:
            more = stream.recv(65536)
        except ConnectionError:
            more = b""
        self.open[stream] += more
        if b"\r\n\r\n" in self.open[stream]:
            request = self.open[stream].split(b"\r\n", 1)[0].decode()
            if request.startswith("GET /spoil/"):
                request = spoil(self.listeners[number], request.split("/")[2].split()[0])
            slot, worker = os.environ["HAFT_SLOT"], os.environ["HAFT_WORKER"]
            body = f"slot: {slot}\nworker: {worker}\npid: {os.getpid()}\nclient: {self.names[number]}\n"
            body += f"listener: {number}\nrequest: {request}\n"
            stream.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        elif more:
            return
        self.selector.unregister(stream)
        del self.open[stream]
        stream.close()


if __name__ == "__main__":
    server = Server()
    if NOTIFIES:
        while not os.path.exists(os.path.join(FOLDER, f"gate-{os.environ['HAFT_SLOT']}")):
            time.sleep(0.005)
        notify("STATUS=here\nREADY=1")
    server.run()

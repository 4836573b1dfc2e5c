"""Clients for the tests in virtual machines: HTTP, Engine.IO by polling, Socket.IO by WebSocket. Only Python's own library."""

import base64
import json
import os
import socket
import time

PATIENCE = 120  # seconds: an emulated machine is slow


def eventually(what, look, patience=PATIENCE):
    """What `look` yields, once that is true; errors count as not yet."""
    end, last = time.monotonic() + patience, None
    while time.monotonic() < end:
        try:
            if found := look():
                return found
            last = None
        except Exception as error:  # reported below
            last = error
        time.sleep(1)
    raise AssertionError(f"not within {patience} s: {what}" + (f" ({last!r})" if last else ""))


def connect(port, source="127.0.0.1"):
    return socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(source, 0))


def ask(port, path="/", body=None, source="127.0.0.1"):
    """One request on a connection of its own: status and body."""
    with connect(port, source) as stream:
        return answer(stream, path, body)


def answer(stream, path="/", body=None):
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: haft\r\nConnection: close\r\n"
    if body is not None:
        head += f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    stream.sendall((head + "\r\n" + (body or "")).encode())
    received = b""
    while chunk := stream.recv(65536):
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        raise ConnectionError("the connection ended without an answer")
    if b"transfer-encoding: chunked" in head.lower():
        chunks, rest = b"", body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            chunks, rest = chunks + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        body = chunks
    return int(head.split()[1]), body.decode()


def polling_session(port, sources):
    """A session whose requests come on connections of their own, one from each of these addresses: the status of each."""
    path = "/socket.io/?EIO=4&transport=polling"
    status, body = ask(port, path)
    assert status == 200, (status, body)
    path += f"&sid={json.loads(body[1:])['sid']}"
    bodies = ["40", None] + ['42["say","something"]', None] * len(sources)
    return [ask(port, path, body, source)[0] for body, source in zip(bodies, sources)]


class WebSocket:
    """A Socket.IO client by WebSocket alone."""

    def __init__(self, port, source="127.0.0.1"):
        self.stream = connect(port, source)
        self.rest = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.stream.sendall(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: haft\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        assert b" 101 " in head, head
        self.until("0")
        self.send("40")
        self.until("40")

    def _more(self):
        chunk = self.stream.recv(65536)
        if not chunk:
            raise ConnectionError("the WebSocket has ended")
        self.rest += chunk

    def _take(self, count):
        while len(self.rest) < count:
            self._more()
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def send(self, text):
        data, mask = text.encode(), os.urandom(4)
        assert len(data) < 126
        self.stream.sendall(bytes([0x81, 0x80 | len(data)]) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))

    def until(self, begin):
        """The next message that begins so; pings are answered on the way."""
        while True:
            opcode, length = self._take(2)
            if length == 126:
                length = int.from_bytes(self._take(2), "big")
            data = self._take(length)
            if opcode == 0x88:
                raise ConnectionError(f"the WebSocket was closed: {data!r}")
            if data == b"2":
                self.send("3")
            elif data.decode().startswith(begin):
                return data.decode()[len(begin):]

    def say(self, text):
        """Has it said back: the id of the process that did."""
        self.send("42" + json.dumps(["say", text]))
        event, said, process = json.loads(self.until("42"))
        assert (event, said) == ("said", text), (event, said)
        return process

    def close(self):
        self.stream.close()

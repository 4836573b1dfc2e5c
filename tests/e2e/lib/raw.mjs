// Bytes on a TCP connection, as they are.

import net from 'node:net';

import { to } from './node-requests.mjs';
import { until, within } from './wait.mjs';

export class Raw {
  /** A connection to this address; it is closed at the end of the test. */
  static async connect(place, address, options = {}) {
    const raw = new Raw(net.connect({ ...to(address), noDelay: true, ...options }));
    place.atEnd(() => raw.close());
    await within(60_000, `a connection to ${address}`, new Promise((resolve, reject) => {
      raw.socket.once('connect', resolve).once('error', reject);
    }));
    return raw;
  }

  constructor(socket) {
    this.socket = socket;
    this.received = Buffer.alloc(0);
    this.ended = false;
    this.error = undefined;
    socket.on('data', (part) => (this.received = Buffer.concat([this.received, part])));
    socket.on('error', (error) => (this.error = error));
    socket.on('close', () => (this.ended = true));
  }

  write(bytes) {
    this.socket.write(bytes);
  }

  /** Writes each part once the kernel has the one before, so that they are segments of their own. */
  async writeParts(parts) {
    for (const part of parts) {
      await within(60_000, 'a part to be written', new Promise((resolve, reject) => {
        this.socket.write(part, (error) => (error ? reject(error) : setImmediate(resolve)));
      }));
    }
  }

  /** The next answer, taken off what was received: `{ status, headers, body }`. */
  async answer() {
    return until('an answer', () => {
      const end = this.received.indexOf('\r\n\r\n');
      if (end < 0) return this.#notYet();
      const [first, ...lines] = this.received.subarray(0, end).toString('latin1').split('\r\n');
      const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]));
      const [, status] = first.match(/^HTTP\/1\.[01] (\d+)/) ?? [];
      const whole = bodyOf(this.received.subarray(end + 4), Number(status), headers, this.ended);
      if (!whole) return this.#notYet();
      this.received = this.received.subarray(end + 4 + whole.taken);
      return { status: Number(status), headers, body: whole.body };
    }, { within: 60_000, every: 5 });
  }

  #notYet() {
    if (this.ended && !this.received.includes('\r\n\r\n')) return Promise.reject(new Error(`the end, ${this.error}: ${this.received}`));
    return false;
  }

  close() {
    this.socket.destroy();
  }
}

/** The body that these bytes begin with, and how many of them it takes (RFC 9112, 6.3); nothing if it is not all there. */
function bodyOf(bytes, status, headers, ended) {
  if (status < 200) return { body: Buffer.alloc(0), taken: 0 };
  if (headers['transfer-encoding'] === 'chunked') return chunked(bytes);
  const length = headers['content-length'];
  // Without a length it is what comes until the end.
  if (length === undefined) return ended && { body: bytes, taken: bytes.length };
  return bytes.length >= length && { body: bytes.subarray(0, Number(length)), taken: Number(length) };
}

function chunked(bytes) {
  const chunks = [];
  for (let at = 0; ; ) {
    const end = bytes.indexOf('\r\n', at);
    if (end < 0) return undefined;
    const length = parseInt(bytes.subarray(at, end).toString(), 16);
    at = end + 2 + length + 2;
    if (bytes.length < at) return undefined;
    if (length === 0) return { body: Buffer.concat(chunks), taken: at };
    chunks.push(bytes.subarray(end + 2, end + 2 + length));
  }
}

// Engine.IO's polling by hand, each request over a connection of its own or over a given one.

import assert from 'node:assert/strict';

import { Raw } from './raw.mjs';

const PATH = '/socket.io/?EIO=4&transport=polling';
const SEPARATOR = '\x1e';

/** A request as bytes: its head, and its body apart. */
export function request(method, path, { body, headers = {} } = {}) {
  const lines = [`${method} ${path} HTTP/1.1`, 'Host: haft.test'];
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  if (body !== undefined) lines.push('Content-Type: text/plain;charset=UTF-8', `Content-Length: ${Buffer.byteLength(body)}`);
  return { head: `${lines.join('\r\n')}\r\n\r\n`, body: body ?? '' };
}

export function pollOf(sid, options) {
  return request('GET', `${PATH}&sid=${sid}`, options);
}

export function postOf(sid, body, options) {
  return request('POST', `${PATH}&sid=${sid}`, { body, ...options });
}

/** A polling session in the namespace `/`. `cut` makes the parts in which a head is sent. */
export class Session {
  static async open(place, address, { cut = (head) => [head], ...options } = {}) {
    const session = new Session(place, address, cut, options);
    const { status, body } = await session.#ask(request('GET', PATH, { headers: CLOSE }));
    assert.equal(status, 200, `${body}`);
    session.sid = JSON.parse(body.toString().slice(1).split(SEPARATOR)[0]).sid;
    await session.post('40');
    await session.packet(/^40\{/);
    return session;
  }

  constructor(place, address, cut, options) {
    Object.assign(this, { place, address, cut, options });
    this.packets = [];
  }

  async post(body) {
    const answer = await this.#ask(postOf(this.sid, body, { headers: CLOSE }));
    assert.deepEqual([answer.status, `${answer.body}`], [200, 'ok']);
  }

  /** The next packet that matches; what comes before is gone. */
  async packet(pattern) {
    for (;;) {
      const packet = this.packets.shift();
      if (packet === undefined) {
        const { status, body } = await this.#ask(pollOf(this.sid, { headers: CLOSE }));
        assert.equal(status, 200, `${body}`);
        this.packets.push(...body.toString().split(SEPARATOR));
      } else if (pattern.test(packet)) {
        return packet;
      } else if (packet === '2') {
        await this.post('3');
      }
    }
  }

  async #ask({ head, body }) {
    const raw = await Raw.connect(this.place, this.address, this.options);
    await raw.writeParts(this.cut(head));
    raw.write(body);
    const answer = await raw.answer();
    raw.close();
    return answer;
  }
}

const CLOSE = { Connection: 'close' };

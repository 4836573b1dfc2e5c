// What clients can make a built-in worker hold is bounded: each attack is tried for as long as the worker takes it, and
// the worker's memory is read meanwhile.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { postOf, request } from './lib/engine.mjs';
import { program } from './lib/program.mjs';
import { Raw } from './lib/raw.mjs';
import { until } from './lib/wait.mjs';

const MIB = 1 << 20;

/** What a connection may hold at most, with the default of --max-payload. */
const EACH = 4_000_000;

/** What it may hold at most when --max-payload is small. */
const LEAST_EACH = 512 * 1024;

/** What an allocator keeps, and what the runtime of a debug build needs meanwhile. */
const SLACK = 16 * MIB;

const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';

/** One worker, and how far its memory has grown at most. */
class Victim {
  static async start(place, ...flags) {
    const haft = await place.haft('-w', '1', ...flags);
    const { slots } = await haft.status();
    const victim = new Victim(place, haft, slots[0].pid);
    await (await victim.websocket()).heard('0{');
    victim.before = victim.memory();
    return victim;
  }

  constructor(place, haft, pid) {
    Object.assign(this, { place, haft, pid });
  }

  /** Its resident memory now, in bytes. */
  memory() {
    return Number(readFileSync(`/proc/${this.pid}/status`, 'utf8').match(/^VmRSS:\s+(\d+) kB/m)[1]) * 1024;
  }

  /** Its greatest resident memory so far, beyond what it began with. */
  grown() {
    const most = Number(readFileSync(`/proc/${this.pid}/status`, 'utf8').match(/^VmHWM:\s+(\d+) kB/m)[1]) * 1024;
    return most - this.before;
  }

  assertBounded(connections, what) {
    const grown = this.grown();
    this.place.say(`${what}: ${(grown / MIB).toFixed(1)} MiB`);
    assert.ok(grown < connections * EACH + SLACK, `${what}: grown by ${(grown / MIB).toFixed(1)} MiB`);
  }

  /** It serves others still. */
  async serves() {
    const { sid, raw } = await this.session();
    assert.equal((await this.post(sid, '421["echo",1]')).status, 200);
    raw.write(request('GET', `/socket.io/?EIO=4&transport=polling&sid=${sid}`).head);
    assert.match((await raw.answer()).body.toString(), /431\[1\]/);
  }

  async connect() {
    return Raw.connect(this.place, this.haft.address);
  }

  async websocket() {
    const raw = await this.connect();
    raw.write(`GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY}\r\n\r\n`);
    raw.heard = (text) => until(text, () => raw.received.includes(text), { within: 60_000, every: 5 });
    await raw.heard('101');
    return raw;
  }

  /** A WebSocket that has joined a namespace and from now on reads nothing. */
  async deaf(namespace = '/echo,') {
    const raw = await this.websocket();
    raw.write(frame(0x81, `40${namespace}`));
    await raw.heard(`40${namespace}`);
    raw.socket.pause();
    return raw;
  }

  /** A polling session that has joined a namespace, and a connection of its own. */
  async session(namespace = '') {
    const raw = await this.connect();
    raw.write(request('GET', '/socket.io/?EIO=4&transport=polling').head);
    const { sid } = JSON.parse((await raw.answer()).body.toString().slice(1));
    await this.post(sid, `40${namespace}`);
    raw.write(request('GET', `/socket.io/?EIO=4&transport=polling&sid=${sid}`).head);
    assert.match((await raw.answer()).body.toString(), /^40/);
    return { sid, raw };
  }

  async post(sid, body) {
    const raw = await this.connect();
    const { head } = postOf(sid, body);
    raw.write(head);
    raw.write(body);
    const answer = await raw.answer();
    raw.close();
    return answer;
  }
}

/** A frame as a client sends it, with a zero mask. */
function frame(first, payload) {
  const body = Buffer.from(payload);
  const head = body.length < 126 ? [first, 0x80 | body.length] : body.length < 65_536 ? [first, 0xfe, body.length >> 8, body.length & 255] : [first, 0xff, 0, 0, 0, 0, ...uint32(body.length)];
  return Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), body]);
}

function uint32(number) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(number);
  return bytes;
}

/** Writes `bytes` again and again, until so many have been taken or nothing more is: the kernel's buffers are full. */
async function pour(raw, bytes, most) {
  let taken = 0;
  while (taken < most && !raw.ended && !raw.error) {
    let full;
    const written = new Promise((resolve) => raw.socket.write(bytes, () => resolve(true)));
    const stuck = new Promise((resolve) => (full = setTimeout(() => resolve(false), 1_500)));
    const goesOn = await Promise.race([written, stuck]);
    clearTimeout(full);
    if (!goesOn) return taken;
    taken += bytes.length;
  }
  return taken;
}

program('WebSocket pings whose answers are never read', async (place) => {
  const victim = await Victim.start(place);
  const raw = await victim.deaf();
  const pings = Buffer.concat(Array.from({ length: 2_000 }, () => frame(0x89, 'x'.repeat(125))));
  const taken = await pour(raw, pings, 300 * MIB);
  victim.assertBounded(1, `${(taken / MIB).toFixed(0)} MiB of pings`);
  assert.ok(taken < 100 * MIB, `it reads on: ${taken}`);
  await victim.serves();
});

program('echoes of 900 kB that are never read, text and binary', async (place) => {
  const victim = await Victim.start(place);
  const text = frame(0x81, `42/echo,1["echo","${'x'.repeat(900_000)}"]`);
  const binary = Buffer.concat([frame(0x81, '451-/echo,1["echo",{"_placeholder":true,"num":0}]'), frame(0x82, Buffer.alloc(900_000))]);
  for (const message of [text, binary]) {
    const raw = await victim.deaf();
    await pour(raw, message, 300 * message.length);
  }
  victim.assertBounded(2, 'two that echo');
  await victim.serves();
});

program('many small echoes that are never read', async (place) => {
  const victim = await Victim.start(place);
  const raw = await victim.deaf();
  const taken = await pour(raw, Buffer.concat(Array.from({ length: 4_000 }, () => frame(0x81, '42/echo,["echo",0]'))), 50 * MIB);
  victim.assertBounded(1, `${(taken / MIB).toFixed(0)} MiB of small echoes`);
  await victim.serves();
});

program('namespaces that are not there, by long names', async (place) => {
  const victim = await Victim.start(place);
  const raw = await victim.deaf();
  await pour(raw, frame(0x81, `40/${'n'.repeat(900_000)},`), 300 * 900_000);
  victim.assertBounded(1, 'refusals');
  await victim.serves();
});

program('echoes for a polling session that never polls', async (place) => {
  const victim = await Victim.start(place);
  const { sid } = await victim.session('/echo,');
  const body = `42/echo,1["echo","${'x'.repeat(900_000)}"]`;
  const statuses = [];
  for (let i = 0; i < 100 && statuses.at(-1) !== 400; i++) statuses.push((await victim.post(sid, body)).status);
  assert.equal(statuses.at(-1), 400, 'the session is ended');
  victim.assertBounded(2, `${statuses.length} posts`);
  await until('a line that tells of it', () => victim.haft.child.lines.some((line) => line.includes('for the memory it held')));
  await victim.serves();
});

program('a hundred thousand packets in one POST', async (place) => {
  const victim = await Victim.start(place);
  const { sid } = await victim.session('/echo,');
  const body = Array.from({ length: 52_000 }, () => '42/echo,["echo",0]').join('\x1e');
  assert.ok(body.length < 1_000_000);
  assert.equal((await victim.post(sid, body)).status, 200);
  victim.assertBounded(1, 'one POST');
  await victim.serves();
});

program('messages to a room of members that read nothing', async (place) => {
  const victim = await Victim.start(place);
  const join = '42["join",{"room":"a"}]';
  const deaf = [];
  for (let i = 0; i < 5; i++) {
    const raw = await victim.deaf();
    raw.write(Buffer.concat([frame(0x81, '40'), frame(0x81, join)]));
    deaf.push(raw);
  }
  const silent = [];
  for (let i = 0; i < 5; i++) {
    const { sid } = await victim.session();
    await victim.post(sid, join);
    silent.push(sid);
  }
  const speaker = await victim.websocket();
  speaker.write(frame(0x81, '40'));
  await speaker.heard('40{');
  speaker.write(frame(0x81, '42["join",{"room":"a"}]'));
  const says = frame(0x81, `42["message",{"room":"a","text":"${'\\u0001'.repeat(2_000)}"}]`);
  await pour(speaker, Buffer.concat(Array.from({ length: 50 }, () => says)), 2_500 * says.length);
  victim.assertBounded(10, 'a room');
  await victim.serves();
});

program('bodies and messages that never end', async (place) => {
  // On a slow machine none may end for its pings before the last has come.
  const victim = await Victim.start(place, '--max-payload', '1000000', '--ping-timeout', '1h');
  const many = 330;
  for (let i = 0; i < many; i++) {
    const raw = await victim.websocket();
    await pour(raw, Buffer.concat([Buffer.from([0x81, 0xff, 0, 0, 0, 0, ...uint32(999_000), 0, 0, 0, 0]), Buffer.alloc(990_000)]), 1);
  }
  // 256 messages, and what they and the others need besides.
  const grown = victim.grown();
  place.say(`unfinished messages: ${(grown / MIB).toFixed(1)} MiB`);
  assert.ok(grown < 256_000_000 + 330 * 20_000 + 2 * SLACK, `${(grown / MIB).toFixed(1)} MiB`);
  await until('a line that tells of it', () => victim.haft.child.lines.some((line) => line.includes('for the memory it held')));
});

program('a body that comes byte by byte', async (place) => {
  const victim = await Victim.start(place);
  const { sid } = await victim.session('/echo,');
  const raw = await victim.connect();
  raw.write(`POST /socket.io/?EIO=4&transport=polling&sid=${sid} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n`);
  raw.write('2\r\n42\r\n');
  await pour(raw, '1\r\nx\r\n'.repeat(100_000), 900_000 * 6);
  victim.assertBounded(1, 'pieces');
  await victim.serves();
});

program('what the HTTP library holds is in the share of a connection', async (place) => {
  const victim = await Victim.start(place, '--max-payload', '1000', '--ping-timeout', '1h');
  const many = 60;
  const all = async (what, begin) => {
    const connections = [];
    for (let i = 0; i < many; i++) {
      const raw = await victim.connect();
      raw.socket.pause();
      connections.push(raw);
    }
    const taken = await Promise.all(connections.map((raw) => pour(raw, begin, 16 * begin.length)));
    const bytes = taken.reduce((all, one) => all + one, 0);
    const grown = victim.grown();
    place.say(`${many} x ${what}: ${(grown / MIB).toFixed(1)} MiB`);
    assert.ok(bytes >= many * begin.length, `${what}: ${bytes} bytes were taken`);
    assert.ok(grown < many * LEAST_EACH + SLACK, `${what}: grown by ${(grown / MIB).toFixed(1)} MiB`);
    connections.forEach((raw) => raw.close());
  };
  const get = (path, more = '') => Buffer.from(`GET ${path} HTTP/1.1\r\nHost: a\r\n${more}\r\n`.repeat(300));
  await all('the client bundle', get('/socket.io/socket.io.js.map'));
  await all('the client bundle, compressed', get('/socket.io/socket.io.js', 'Accept-Encoding: br\r\n'));
  await all('the page, compressed', get('/', 'Accept-Encoding: gzip\r\n'));
  await all('answers without a body', Buffer.from('HEAD / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(1_000)));
  await all('a head that does not end', Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\nX: ${' '.repeat(30_000)}`));
  await all('a body that does not end', Buffer.from(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n${'x'.repeat(60_000)}`));
  await victim.serves();
});

program('an answer to a poll that is never read', async (place) => {
  // The answers are far longer than what the kernel takes for a client that reads nothing.
  const victim = await Victim.start(place, '--max-payload', '4000000');
  const many = 8;
  for (let i = 0; i < many; i++) {
    const { sid, raw } = await victim.session('/echo,');
    const body = `42/echo,1["echo","${'x'.repeat(3_900_000)}"]`;
    // Each is echoed twice: as an event and as an acknowledgement.
    for (let n = 0; n < 2; n++) assert.equal((await victim.post(sid, body)).status, 200);
    raw.socket.pause();
    raw.write(request('GET', `/socket.io/?EIO=4&transport=polling&sid=${sid}`).head);
  }
  // The answer is on its way when the next session of the same worker is served.
  await victim.serves();
  const grown = victim.grown();
  place.say(`unread answers: ${(grown / MIB).toFixed(1)} MiB`);
  assert.ok(grown > many * 4 * 3_900_000 / 2, 'they are held at all');
  assert.ok(grown < many * 16_000_000 + 2 * SLACK, `grown by ${(grown / MIB).toFixed(1)} MiB`);
});

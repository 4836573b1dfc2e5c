// The built-in worker speaks Engine.IO 4 and Socket.IO 5 as the protocols' own test suites ask: what is sent, what is
// refused, and above all when a ping comes and when a session ends without its answer.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

import { program } from './lib/program.mjs';
import { until, within } from './lib/wait.mjs';

const WebSocket = createRequire(import.meta.url)('ws');

const INTERVAL = 300;
const TIMEOUT = 2000;
const SEPARATOR = '\x1e';

/** The engine of one haft, asked by hand. */
class Engine {
  static async start(place, interval = `${INTERVAL}ms`, patience = `${TIMEOUT}ms`) {
    return new Engine(place, await place.haft('-w', '2', '--ping-interval', interval, '--ping-timeout', patience));
  }

  constructor(place, haft) {
    this.place = place;
    this.base = `${haft.url}/socket.io/`;
  }

  async ask(query, options) {
    const response = await fetch(`${this.base}?${query}`, { signal: AbortSignal.timeout(20_000), ...options });
    return { status: response.status, text: await response.text() };
  }

  async open() {
    const { status, text } = await this.ask('EIO=4&transport=polling');
    assert.equal(status, 200, text);
    assert.equal(text[0], '0');
    return JSON.parse(text.slice(1));
  }

  poll(sid, options) {
    return this.ask(`EIO=4&transport=polling&sid=${sid}`, options);
  }

  post(sid, body) {
    return this.poll(sid, { method: 'POST', body });
  }

  socket(query = 'EIO=4&transport=websocket') {
    const socket = new Socket(`${this.base.replace('http', 'ws')}?${query}`);
    this.place.atEnd(() => socket.ws.terminate());
    return socket;
  }

  /** A WebSocket that has joined `namespace` and heard what is said there first. */
  async joined(namespace = '') {
    const socket = this.socket();
    assert.match(await socket.next(), /^0\{/);
    socket.ws.send(`40${namespace}`);
    assert.match(await socket.next(), /^40/);
    if (!namespace) assert.match(await socket.next(), /^42\["hello",/);
    return socket;
  }
}

/** A WebSocket whose messages wait until they are asked for. */
class Socket {
  constructor(url) {
    this.ws = new WebSocket(url);
    this.messages = [];
    this.ws.on('message', (data, binary) => this.messages.push(binary ? data : data.toString()));
    this.ws.on('error', () => {});
    this.ws.on('close', () => (this.closed = true));
    this.opened = new Promise((resolve) => this.ws.once('open', resolve));
  }

  async next() {
    await until('a message', () => this.messages.length > 0, { within: 60_000, every: 2 });
    return this.messages.shift();
  }

  /** The next message that is not a ping. */
  async packet() {
    for (;;) {
      const message = await this.next();
      if (message !== '2') return message;
    }
  }

  async open() {
    await within(60_000, 'a WebSocket', this.opened);
  }

  async end() {
    await until('the end of a WebSocket', () => this.closed, { within: 60_000, every: 2 });
  }
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function assertOpen(open, upgrades) {
  assert.deepEqual(Object.keys(open).sort(), ['maxPayload', 'pingInterval', 'pingTimeout', 'sid', 'upgrades']);
  assert.deepEqual([typeof open.sid, open.upgrades, open.pingInterval, open.pingTimeout, open.maxPayload], ['string', upgrades, INTERVAL, TIMEOUT, 1_000_000]);
}

program('handshakes: what opens a session, and what is refused', async (place) => {
  const engine = await Engine.start(place);
  assertOpen(await engine.open(), ['websocket']);
  const socket = engine.socket();
  assertOpen(JSON.parse((await socket.next()).slice(1)), []);

  for (const query of ['transport=polling', 'EIO=abc&transport=polling', 'EIO=4', 'EIO=4&transport=abc']) {
    assert.equal((await engine.ask(query)).status, 400, query);
    await engine.socket(query.replace('polling', 'websocket')).end();
  }
  for (const method of ['POST', 'PUT']) {
    assert.equal((await engine.ask('EIO=4&transport=polling', { method })).status, 400, method);
  }
});

program('polling: packets come back, one or several, text and binary', async (place) => {
  const engine = await Engine.start(place);
  const { sid } = await engine.open();
  assert.deepEqual(await engine.post(sid, '40/echo,'), { status: 200, text: 'ok' });
  const joined = await engine.poll(sid);
  assert.match(joined.text, /^40\/echo,\{"sid":"[^"]+"\}$/, 'no ping is ahead of it');

  const texts = ['a', 'b', 'c'].map((text) => `42/echo,["echo","${text}"]`);
  const binary = ['451-/echo,["echo",{"_placeholder":true,"num":0}]', 'bAQIDBA=='];
  for (const packets of [texts.slice(0, 1), texts, [...texts, ...binary]]) {
    assert.deepEqual(await engine.post(sid, packets.join(SEPARATOR)), { status: 200, text: 'ok' });
    const heard = [];
    while (heard.length < packets.length) {
      const { status, text } = await engine.poll(sid);
      assert.equal(status, 200, text);
      heard.push(...text.split(SEPARATOR).filter((packet) => packet !== '2'));
      if (text.split(SEPARATOR).includes('2')) await engine.post(sid, '3');
    }
    assert.deepEqual(heard, packets);
  }
});

program('polling: what ends a session', async (place) => {
  const engine = await Engine.start(place);
  const gone = async (sid) => assert.equal((await engine.poll(sid)).status, 400);

  const malformed = (await engine.open()).sid;
  assert.equal((await engine.post(malformed, 'abc')).status, 400);
  await gone(malformed);

  const twice = (await engine.open()).sid;
  const both = await Promise.all([engine.poll(twice), engine.poll(twice)]);
  const [heard, refused] = both.sort((a, b) => a.status - b.status);
  assert.deepEqual(heard, { status: 200, text: '1' });
  assert.ok([400, 500].includes(refused.status));
  await gone(twice);

  const cancelled = (await engine.open()).sid;
  for (let wait = 5, status = 200; status !== 400; wait *= 2) {
    // Too soon, and it was never asked; then it goes on.
    const controller = new AbortController();
    const poll = engine.poll(cancelled, { signal: controller.signal }).catch(() => {});
    await sleep(wait);
    controller.abort();
    await poll;
    ({ status } = await engine.poll(cancelled));
    assert.ok(wait < 300, 'a cancelled poll ends its session');
  }

  const closed = (await engine.open()).sid;
  const [last] = await Promise.all([engine.poll(closed), sleep(100).then(() => engine.post(closed, '1'))]);
  assert.deepEqual(last, { status: 200, text: '6' });
  await gone(closed);
});

program('polling: a ping after each interval, and the end after the time-out', async (place) => {
  const engine = await Engine.start(place);
  const { sid } = await engine.open();
  for (let round = 0; round < 3; round++) {
    assert.deepEqual(await engine.poll(sid), { status: 200, text: '2' });
    assert.equal((await engine.post(sid, '3')).status, 200);
  }
  const silent = (await engine.open()).sid;
  await sleep(INTERVAL + TIMEOUT + 50);
  assert.equal((await engine.poll(silent)).status, 400);
});

program('WebSocket: a ping after each interval, and the end after the time-out', async (place) => {
  const engine = await Engine.start(place);
  const socket = engine.socket();
  assert.match(await socket.next(), /^0/);
  for (let round = 0; round < 3; round++) {
    assert.equal(await socket.next(), '2');
    socket.ws.send('3');
  }
  const silent = engine.socket();
  await silent.end();
  assert.deepEqual(silent.messages.map((message) => message[0]).slice(0, 2), ['0', '2']);
});

program('a session that is silent for longer than the time-out before its first ping lives', async (place) => {
  const engine = await Engine.start(place, '1h', '300ms');
  const { sid } = await engine.open();
  const socket = engine.socket();
  await socket.next();
  await sleep(600);
  assert.deepEqual(await engine.post(sid, '40/echo,'), { status: 200, text: 'ok' });
  assert.match((await engine.poll(sid)).text, /^40\/echo,[^\x1e]*$/, 'and no ping is ahead of what it hears');
  socket.ws.send('40/echo,');
  assert.match(await socket.next(), /^40\/echo,/);
});

program('WebSocket: what is sent, and what ends it', async (place) => {
  const engine = await Engine.start(place);
  for (const packet of ['abc', '1', '4abc']) {
    const socket = engine.socket();
    await socket.next();
    socket.ws.send(packet);
    await socket.end();
  }
  const echo = await engine.joined('/echo');
  echo.ws.send('42/echo,["echo",1,"2",{"3":[true]}]');
  assert.equal(await echo.packet(), '42/echo,["echo",1,"2",{"3":[true]}]');

  const parts = ['452-/echo,["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', Buffer.from([1, 2, 3]), Buffer.from([4, 5, 6])];
  parts.forEach((part) => echo.ws.send(part));
  for (const part of parts) assert.deepEqual(await echo.packet(), part);

  echo.ws.send('42/echo,456["echo",1,"2",{"3":[false]}]');
  assert.equal(await echo.packet(), '43/echo,456[1,"2",{"3":[false]}]');
  assert.equal(await echo.packet(), '42/echo,["echo",1,"2",{"3":[false]}]');

  const placeholders = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}';
  [`452-/echo,789["echo",${placeholders}]`, ...parts.slice(1)].forEach((part) => echo.ws.send(part));
  for (const part of [`462-/echo,789[${placeholders}]`, ...parts.slice(1)]) assert.deepEqual(await echo.packet(), part);
  for (const part of parts) assert.deepEqual(await echo.packet(), part);

  // A packet of no type, one whose data is no list, and an acknowledgement whose id is no number.
  for (const wrong of ['4abc', '42{}', '42abc["echo",1]']) {
    const socket = await engine.joined();
    socket.ws.send(wrong);
    await socket.end();
  }
});

program('upgrades: the WebSocket takes over, and takes over once', async (place) => {
  const engine = await Engine.start(place);
  const { sid } = await engine.open();
  const query = `EIO=4&transport=websocket&sid=${sid}`;
  const socket = engine.socket(query);
  await socket.open();
  socket.ws.send('2probe');
  assert.equal(await socket.next(), '3probe');
  assert.deepEqual(await engine.poll(sid), { status: 200, text: '6' });
  socket.ws.send('5');
  socket.ws.send('40/echo,');
  assert.match(await socket.packet(), /^40\/echo,/);

  assert.equal((await engine.poll(sid)).status, 400);
  await engine.socket(query).end();
  socket.ws.send('42/echo,["echo","still here"]');
  assert.equal(await socket.packet(), '42/echo,["echo","still here"]');
});

program('namespaces: joining, leaving, and one that is not there', async (place) => {
  const engine = await Engine.start(place);
  for (const [joins, joined] of [['40{"token":"123"}', /^40\{"sid":"[^"]+"\}$/], ['40/echo,{"token":"abc"}', /^40\/echo,\{"sid":"[^"]+"\}$/]]) {
    const socket = engine.socket();
    await socket.next();
    socket.ws.send(joins);
    assert.match(await socket.packet(), joined);
  }
  const stranger = engine.socket();
  await stranger.next();
  stranger.ws.send('40/random');
  assert.equal(await stranger.packet(), '44/random,{"message":"Invalid namespace"}');

  const left = await engine.joined();
  left.ws.send('41');
  assert.equal(await left.next(), '2', 'the transport stays, and is pinged');

  const both = await engine.joined();
  assert.equal(await both.next(), '2', 'the next thing is a ping');
  both.ws.send('3');
  both.ws.send('40/echo,');
  assert.match(await both.packet(), /^40\/echo,/);
  both.ws.send('41/echo,');
  both.ws.send('42["echo","in the main namespace"]');
  assert.equal(await both.packet(), '42["echo","in the main namespace"]');
});

// What sticks with --affinity session, and what does not: clients that change their address, paths that need not stick,
// ids that no worker gave, programs without tags, and connections that bring requests of other workers' sessions.

import assert from 'node:assert/strict';

import { echoes, who } from './lib/app.mjs';
import { Session, pollOf, postOf, request } from './lib/engine.mjs';
import { fetchText } from './lib/fetch.mjs';
import { file } from './lib/files.mjs';
import { Home, MovingHome, homes } from './lib/home.mjs';
import { to } from './lib/node-requests.mjs';
import { tagOf, tagged } from './lib/preload-tag.mjs';
import { program } from './lib/program.mjs';
import { Raw } from './lib/raw.mjs';
import { inTurns, until } from './lib/wait.mjs';

const STICKY = ['--affinity', 'session'];
const NODE = ['--', 'node', file('session-server.mjs')];
const LONG = 'x'.repeat(1_000_000);
const BOTH = [['the built-in worker'], ['a program of Node', ...NODE]];

for (const [name, ...command] of BOTH) {
  program(`${name}: clients that change their address in mid-session stay with their worker`, async (place) => {
    const haft = await place.haft('-w', '4', '-l', '0', ...STICKY, ...command);
    const { port } = to(haft.address);
    const clients = await inTurns(Array(12), 6, async (_, index) => {
      const home = new MovingHome('127.0.0.1');
      home.moveTo('127.0.0.1');
      const transports = index % 2 ? ['polling'] : ['polling', 'websocket'];
      // It would go to WebSocket at once, and then move no more.
      const client = await place.client(`http://127.0.0.1:${port}`, home, { transports, upgrade: false }).connected();
      return Object.assign(client, { worker: await who(client) });
    });
    for (const [host, address] of [['127.0.0.1', '127.0.0.2'], ['127.0.0.1', '127.0.9.9'], ['::1'], ['127.0.0.1', '127.0.0.3']]) {
      await inTurns(clients, 6, async (client) => {
        client.home.moveTo(host, address);
        await echoes(client, 2);
      });
    }
    for (const { connects, disconnects, errors } of clients) assert.deepEqual([connects, disconnects, errors], [1, [], []]);
    const slots = clients.map(({ worker }) => worker.slot);
    assert.equal(new Set(slots).size, 4, 'they are with all workers');
    const routed = await haft.routed();
    assert.deepEqual([routed.opening, routed.lost_session, routed.address], [12, 0, 0]);
    await haft.stop();
  });

  program(`${name}: an id that no worker gave is none`, async (place) => {
    const key = 'a secret of these tests';
    const haft = await place.haft('-w', '4', ...STICKY, '--tag-key', key, ...command);
    const [{ sid }, { sid: other }] = await opened(place, haft);
    const { base } = tagOf(sid);
    const madeUp = [
      `${base}100AAAAAAAAAAAAAAAA`,
      `${'x'.repeat(20)}${sid.slice(-19)}`,
      `${base}${other.slice(-19)}`,
      `${sid}x`,
      await tagged(base, 2, 0, '00'.repeat(32)),
      base,
    ];
    const before = await haft.routed();
    for (const each of madeUp) assert.equal(await status(place, haft, pollOf(each)), 400, each);
    const after = await haft.routed();
    assert.equal(after.address - before.address, madeUp.length, 'they go by the address');
    assert.equal(after.session, before.session);

    // A holder of the key (it is the SHA-256 of what was typed) can name a worker, and then a generation that is no
    // more.
    const digest = Buffer.from(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(key))).toString('hex');
    assert.equal(await tagged(base, tagOf(sid).slot, 0, digest), sid);
    const delivered = await haft.counts('haft_connections_delivered_total', 'slot');
    assert.equal(await status(place, haft, pollOf(await tagged('nobody', 3, 0, digest))), 400);
    assert.equal(await status(place, haft, pollOf(await tagged('nobody', 3, 7, digest))), 400);
    assert.equal(await status(place, haft, pollOf(await tagged('nobody', 99, 0, digest))), 400);
    const now = await haft.counts('haft_connections_delivered_total', 'slot');
    assert.ok(now[3] - delivered[3] >= 2, 'slot 3 was asked');
    const routed = await haft.routed();
    assert.deepEqual([routed.session - after.session, routed.lost_session - after.lost_session], [1, 2]);
    await haft.stop();
  });

  for (const affinity of ['ip', 'session']) {
    program(`${name}: with --sticky-path and --affinity ${affinity} only what is below it sticks`, async (place) => {
      const flags = ['--affinity', affinity, '--sticky-path', '/socket.io/'];
      const haft = await place.haft('-w', '4', ...flags, ...command);
      const home = new Home('127.0.0.1');
      const clients = await inTurns(Array(12), 6, async () => place.client(haft.url, home, { transports: ['polling'] }).connected());
      const pages = [];
      for (let index = 0; index < 40; index++) {
        pages.push(JSON.parse(await fetchText(new URL('/haft/page.json', haft.url), home)).worker.slot);
      }
      await inTurns(clients, 6, (client) => echoes(client, 1));
      assert.equal(new Set(pages).size, 4, 'pages come from all workers');
      const slots = await Promise.all(clients.map(async (client) => (await who(client)).slot));
      assert.equal(new Set(slots).size, affinity === 'ip' ? 1 : 4, 'where the sessions are');
      for (const { connects, errors } of clients) assert.deepEqual([connects, errors], [1, []]);
      assert.equal((await haft.routed()).load, pages.length);
      await haft.stop();
    });
  }
}

program('--no-preload: sessions have no tag and go by their address', async (place) => {
  const haft = await place.haft('-w', '4', ...STICKY, '--no-preload', ...NODE);
  const slots = await inTurns(homes(16), 8, async (home) => {
    const clients = [['polling', 'websocket'], ['polling']].map((transports) => place.client(haft.url, home, { transports }));
    for (const client of clients) await echoes(await client.connected(), 1);
    for (const { connects, errors, socket } of clients) {
      assert.deepEqual([connects, errors], [1, []]);
      assert.equal(tagOf(socket.io.engine.id), undefined);
    }
    const [one, other] = await Promise.all(clients.map(who));
    assert.deepEqual(one, other, `${home.address} has one worker`);
    return one.slot;
  });
  assert.ok(new Set(slots).size > 1, 'more than one worker has clients');
  const routed = await haft.routed();
  assert.deepEqual([routed.opening, routed.session, routed.lost_session], [0, 0, 0]);
  await haft.stop();
});

program('@socket.io/sticky without preload: sessions are found by what the workers say of them', async (place) => {
  const flags = ['--no-preload', '--node-style', 'socket.io-sticky'];
  const haft = await place.haft('-w', '4', ...STICKY, ...flags, '--', 'node', file('node-style-server.cjs'), 'socket.io-sticky-2');
  const home = new Home('127.0.0.1');
  // A worker names a session just after its client has the id, which may be back before haft knows it.
  const clients = await inTurns(Array(200), 20, async (_, index) => {
    const client = await place.client(haft.url, home, { transports: index % 2 ? ['polling'] : ['polling', 'websocket'] }).connected();
    assert.equal(tagOf(client.socket.io.engine.id), undefined);
    return client;
  });
  await inTurns(clients, 10, (client) => echoes(client, 2));
  for (const { connects, disconnects, errors } of clients) assert.deepEqual([connects, disconnects, errors], [1, [], []]);
  const slots = await Promise.all(clients.map(async (client) => (await who(client)).slot));
  const counts = [0, 1, 2, 3].map((slot) => slots.filter((each) => each === slot).length);
  assert.ok(Math.max(...counts) <= 60, `spread over all workers: ${counts}`);
  const routed = await haft.routed();
  assert.deepEqual([routed.opening, routed.lost_session, routed.address], [clients.length, 0, 0], 'all were found');
  place.say(`${counts} sessions a worker`);
  await haft.stop();
});

for (const [name, ...command] of BOTH) {
  program(`${name}: a request for another worker on a used connection is answered 400, and that connection ends`, async (place) => {
    const haft = await place.haft('-w', '3', ...STICKY, ...command);
    const [one, other, third] = await opened(place, haft);
    const upgrade = request('GET', `/socket.io/?EIO=4&transport=websocket&sid=${other.sid}`, { headers: UPGRADE });
    for (const anothers of [postOf(other.sid, '3'), postOf(third.sid, LONG), pollOf(other.sid), upgrade]) {
      const raw = await Raw.connect(place, haft.address);
      const send = async ({ head, body }) => {
        raw.write(head + body);
        return raw.answer();
      };
      for (let round = 0; round < 2; round++) assert.equal((await send(postOf(one.sid, '3'))).status, 200);
      isRefused(await send(anothers));
      await until('the end of the connection', () => raw.ended);
      assert.equal(raw.received.length, 0, 'and nothing more');
    }
    assert.equal(await status(place, haft, postOf(other.sid, '3')), 200, 'on a connection of its own it is well');
    await other.post('420["echo","still there"]');
    assert.equal(JSON.parse((await other.packet(/^42\["echo"/)).slice(2))[1], 'still there');

    // Two requests in one segment, of which the second is another's.
    const both = await Raw.connect(place, haft.address);
    const [mine, anothers] = [postOf(other.sid, '3'), postOf(third.sid, '3')];
    both.write(`${mine.head}${mine.body}${anothers.head}${anothers.body}`);
    assert.equal((await both.answer()).status, 200);
    isRefused(await both.answer());
    await until('the end of the connection', () => both.ended);
    const { refused, respawned } = await haft.ledger();
    assert.deepEqual([refused, respawned], [0, 0]);
    await haft.stop();
  });
}

const UPGRADE = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13, 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' };

function isRefused({ status, headers, body }) {
  assert.deepEqual([status, headers.connection], [400, 'close']);
  // Engine.IO's answer to an upgrade is the bare text.
  assert.match(`${body}`, /^(\{"code":1,"message":")?Session ID unknown("\})?$/);
}

/** A session on each worker. */
async function opened(place, haft) {
  const { slots } = await haft.status();
  const sessions = [];
  for (let index = 0; index < slots.length; index++) sessions.push(await Session.open(place, haft.address));
  assert.equal(new Set(sessions.map(({ sid }) => tagOf(sid).slot)).size, slots.length, 'each is with another worker');
  return sessions;
}

/** The status of one request over a connection of its own. */
async function status(place, haft, { head, body }) {
  const raw = await Raw.connect(place, haft.address);
  raw.write(head + body);
  const { status } = await raw.answer();
  raw.close();
  return status;
}

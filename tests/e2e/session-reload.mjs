// Five reloads in a row while 200 clients that only poll exchange messages: no session ends, no message is lost. And
// what a session id leads to once the master itself was restarted.

import assert from 'node:assert/strict';

import { echoes } from './lib/app.mjs';
import { Exchange, Route } from './lib/exchange.mjs';
import { file } from './lib/files.mjs';
import { Home } from './lib/home.mjs';
import { request, to } from './lib/node-requests.mjs';
import { tagOf } from './lib/preload-tag.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

const WORKERS = 4;
const RELOADS = 5;
/** So many clients come before the first reload, and so many after each: clients of every generation live on. */
const COMING = [70, 26, 26, 26, 26, 26];
/** Long enough that a session that ends because this time is over ends after the test. */
const DRAIN = ['--drain-timeout', '600s'];
const HERE = new Home('127.0.0.1');
const ADAPTER = ['--node-serialization', 'advanced', '--', 'node', file('node-adapter-server.cjs'), '@socket.io/cluster-adapter'];

program('five reloads: the built-in worker, partners on one worker', (place) => reloads(place, besideEachOther));
program('five reloads: a program of Node, partners on all workers of all generations', (place) => {
  return reloads(place, acrossWorkers, ...ADAPTER);
});

async function reloads(place, pair, ...command) {
  const haft = await place.haft('-w', `${WORKERS}`, '--affinity', 'session', ...DRAIN, ...command);
  const exchange = new Exchange(place);
  const clients = [];
  const come = async (count) => {
    const newcomers = await inTurns(Array(count), 20, async () => {
      const client = await place.client(haft.url, HERE, { transports: ['polling'] }).connected();
      return Object.assign(client, await client.hello());
    });
    exchange.add(...(await pair(newcomers, clients)));
    clients.push(...newcomers);
  };
  await come(COMING[0]);
  exchange.start();
  for (let generation = 1; generation <= RELOADS; generation++) {
    await exchange.goesOn(`of generation ${generation - 1}`);
    await reloaded(haft, generation);
    if (COMING[generation]) await come(COMING[generation]);
  }
  await exchange.goesOn('after the last reload');
  const messages = await exchange.end();

  const all = COMING.reduce((sum, count) => sum + count);
  assert.equal(clients.length, all);
  for (const client of clients) {
    assert.deepEqual([client.connects, client.disconnects, client.errors], [1, [], []], 'no session was lost');
  }
  const generations = clients.map(({ socket }) => tagOf(socket.io.engine.id).generation);
  assert.deepEqual([...new Set(generations)].sort(), Object.keys(COMING).map(Number), 'clients of each generation');
  assert.equal((await haft.routed()).lost_session, 0);
  assert.equal(await draining(haft), WORKERS * RELOADS, 'whoever has sessions is there still');

  clients.forEach((client) => client.close());
  await until('the old workers to end, whose clients have left', async () => (await draining(haft)) === 0, { within: 60_000 });
  // A program with a timer of its own, as the adapter has, does not end by itself, and is told to when no client is left.
  const ends = await haft.child.heard(/ worker (?:has left|died|exited).*: (.*) slot=\d+ worker=\d+/, WORKERS * RELOADS);
  for (const [, how] of ends) assert.match(how, /^ended as asked \((exit code 0|SIGTERM)\)/);
  const { refused, respawned } = await haft.ledger();
  assert.deepEqual([refused, respawned], [0, 0]);
  place.say(`${all} clients, ${RELOADS} reloads, ${messages} messages, none lost`);
  await haft.stop();
}

program('@socket.io/sticky without preload: a replaced worker goes on with the sessions that it has named', async (place) => {
  const flags = ['--no-preload', '--node-style', 'socket.io-sticky', ...DRAIN];
  const haft = await place.haft('-w', '2', '--affinity', 'session', ...flags, '--', 'node', file('node-style-server.cjs'), 'socket.io-sticky-2');
  const clients = [];
  for (let generation = 0; generation <= 2; generation++) {
    if (generation > 0) await reloaded(haft, generation);
    const come = () => place.client(haft.url, HERE, { transports: ['polling'] }).connected();
    clients.push(...(await inTurns(Array(20), 10, come)));
    await inTurns(clients, 10, (client) => echoes(client, 2));
  }
  assert.equal(await draining(haft), 4, 'whoever has sessions is there still');
  for (const { connects, disconnects, errors } of clients) assert.deepEqual([connects, disconnects, errors], [1, [], []]);
  const { opening, session, lost_session } = await haft.routed();
  assert.deepEqual([opening, lost_session, session > 0], [clients.length, 0, true]);
  clients.forEach((client) => client.close());
  await until('the old workers to end, whose clients have left', async () => (await draining(haft)) === 0, { within: 60_000 });
  await haft.stop();
});

program('a goodbye is said one by one, and until its turn comes a session that polls finds its draining worker', async (place) => {
  // A tenth of this time for goodbyes, and then five seconds in which the client of the last one may come.
  const haft = await place.haft('-w', '2', '--affinity', 'session', '--drain-timeout', '20s');
  const clients = await inTurns(Array(30), 20, () => place.client(haft.url, HERE, { transports: ['polling'] }).connected());
  let ended = 0;
  let [asked, answered] = [0, 0];
  const talking = clients.map(async (client) => {
    // Over new connections all the time: each of them has to find the worker.
    for (let number = 0; client.disconnects.length === 0; number++) {
      asked++;
      const answer = client.ask('echo', number).then(() => answered++).catch(() => {});
      await Promise.race([answer, until('a goodbye', () => client.disconnects.length > 0, { within: 60_000 })]);
    }
    ended++;
  });
  await reloaded(haft, 1);
  await until('all to be told', () => ended === clients.length, { within: 60_000 });
  await Promise.all(talking);
  await until('all to be back', () => clients.every(({ connects }) => connects === 2));
  for (const client of clients) {
    assert.deepEqual([client.errors, client.disconnects], [[], ['transport close']], 'told by a close packet, and not by 400');
  }
  assert.equal((await haft.routed()).lost_session, 0, 'no poll came to a worker that does not know its session');
  assert.equal((await haft.counts('haft_worker_requests_refused_total', 'reason')).session, 0, 'none was answered with 400');
  const { goodbye } = await haft.counts('haft_worker_messages_lost_total', 'reason');
  assert.ok(goodbye <= asked - answered, `${goodbye} lost of ${asked} messages, ${answered} answered`);
  place.say(`${asked} messages, ${goodbye} of them crossed the goodbye of their session`);
  clients.forEach((client) => client.close());
  await haft.stop();
});

async function reloaded(haft, generation) {
  const { status, body } = await haft.post('/reload');
  assert.equal(status, 202, body);
  await until(`generation ${generation}`, async () => {
    const { reload, slots } = await haft.status();
    assert.notEqual(reload.state, 'failed', reload.description);
    return reload.state === 'done' && slots.every((slot) => slot.generation === generation);
  }, { within: 60_000 });
}

/** How many replaced workers there still are. */
function draining(haft) {
  return haft.total('haft_workers_draining');
}

/** Pairs clients of the same worker, since rooms do not reach further; one that is left over talks to itself. */
async function besideEachOther(newcomers) {
  const routes = [];
  const waiting = new Map();
  for (const client of newcomers) {
    const partner = waiting.get(client.pid);
    if (!partner) {
      waiting.set(client.pid, client);
      continue;
    }
    waiting.delete(client.pid);
    const room = `room ${client.socket.id}`;
    for (const member of [client, partner]) await member.ask('join', { room });
    routes.push(inRoom(client, partner, room), inRoom(partner, client, room));
  }
  for (const client of waiting.values()) {
    const route = new Route((number) => client.ask('echo', number));
    client.socket.on('echo', (number) => route.arrived.push(number));
    routes.push(route);
  }
  return routes;
}

function inRoom(from, to, room) {
  const route = new Route(async (number) => {
    const [{ ok, missed, error }] = await from.ask('message', { room, text: `${number}` });
    assert.deepEqual([ok, missed], [true, 0], error);
  });
  to.socket.on('message', ({ text }) => route.arrived.push(Number(text)));
  return route;
}

/** Pairs new clients with earlier ones, which are with workers of other generations; the first with each other. */
async function acrossWorkers(newcomers, before) {
  const others = before.length > 0 ? before : newcomers.slice(newcomers.length / 2);
  const pairs = newcomers.slice(0, before.length > 0 ? undefined : newcomers.length / 2).map((one, index) => [one, others[index]]);
  const routes = [];
  for (const [one, other] of pairs) {
    for (const [from, to] of [[one, other], [other, one]]) routes.push(await toRoom(from, to));
  }
  const apart = pairs.filter(([one, other]) => one.pid !== other.pid).length;
  assert.ok(apart > pairs.length / 3, `${apart} of ${pairs.length} pairs are on two workers`);
  return routes;
}

let rooms = 0;

async function toRoom(from, to) {
  const room = `room ${++rooms}`;
  await to.ask('join', room);
  const route = new Route((number) => from.ask('to room', room, { room, number }));
  to.socket.on('all', (message) => message.room === room && route.arrived.push(message.number));
  return route;
}

program('a restart with the same --tag-key: ids lead to their slot, and clients come back by themselves', async (place) => {
  const key = ['--tag-key', 'a secret of these tests'];
  const beats = ['--ping-interval', '500ms', '--ping-timeout', '60s'];
  const flags = ['-w', `${WORKERS}`, '--affinity', 'session', ...key, ...beats];
  const before = await place.haft(...flags);
  // They have not noticed the end: on the way to their next request something takes time.
  const homes = Array.from({ length: 12 }, () => new Home('127.0.0.1'));
  const clients = await inTurns(homes, 12, async (home) => place.client(before.url, home, { transports: ['polling'] }).connected());
  const ids = clients.map(({ socket }) => socket.io.engine.id);
  homes.forEach((home) => home.agent.hold());
  await until('all clients to be about to ask again', () => homes.every(({ agent }) => agent.idle()));
  await before.stop();

  const after = await place.haft(...flags, '-l', before.address);
  const routed = await after.routed();
  homes.forEach((home) => home.agent.release());
  await until('all clients to have a second session', () => clients.every(({ connects }) => connects === 2));
  for (const [index, client] of clients.entries()) {
    assert.match(client.errors[0], /^400 Session ID unknown/, 'nobody knows the session any more');
    assert.notEqual(client.socket.io.engine.id, ids[index]);
    await echoes(client);
  }
  assert.ok((await after.routed()).session >= routed.session + clients.length);

  place.clients.forEach((client) => client.close());
  await until('all clients to be gone', async () => (await after.total('haft_worker_connections_open')) === 0);
  for (const id of ids) {
    const { slot } = tagOf(id);
    const before = await after.counts('haft_connections_delivered_total', 'slot');
    const path = `/socket.io/?EIO=4&transport=polling&sid=${id}`;
    const { status, body } = await request({ ...to(after.address), path });
    assert.deepEqual([status, JSON.parse(body).message], [400, 'Session ID unknown']);
    const now = await after.counts('haft_connections_delivered_total', 'slot');
    assert.deepEqual(now, { ...before, [slot]: before[slot] + 1 }, 'the slot that the id names is asked');
  }
  await after.stop();
});

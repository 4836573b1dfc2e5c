// Workers that talk to each other through @socket.io/cluster-adapter: haft's rooms stand in for it, and with --rooms off haft
// passes on what its Node primary would.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { redis } from './lib/databases.mjs';
import { file } from './lib/files.mjs';
import { Haft } from './lib/haft.mjs';
import { homes } from './lib/home.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

const SERVER = file('node-adapter-server.cjs');
const ADAPTERS = ['@socket.io/cluster-adapter', 'cluster-adapter-0.2'];
const WORKERS = 4;

const REPLACED = /haft's rooms stand in for the program's @socket.io\/cluster-adapter/;

for (const adapter of ADAPTERS) {
  for (const module of ['CommonJS', 'ESM']) {
    program(`${adapter}, ${module}: rooms stand in for it, with binary payload, also on another host`, async (place) => {
      const { url } = await redis(place);
      const hosts = await inTurns(['one', 'two'], 2, (name) => hostWith(place, name, module, adapter, '--redis', url));
      const clients = await gather(place, hosts.map((haft) => haft.url));
      await everybodyIsReached(clients);
      for (const haft of hosts) {
        assert.equal(await haft.total('haft_rooms_members'), WORKERS / 2);
        assert.equal(await haft.total('haft_rooms_hosts'), 1);
        assert.equal(await haft.total('haft_rooms_dropped_total'), 0);
        assert.equal(haft.child.lines.filter((line) => REPLACED.test(line)).length, 1, 'it is said once');
      }
      clients.forEach((client) => client.close());
      for (const haft of hosts) await haft.stop();
    });
  }

  program(`${adapter}, --rooms off: all clients are reached, with binary payload`, async (place) => {
    const haft = await haftWith(place, adapter);
    const clients = await gather(place, haft.url);
    await everybodyIsReached(clients);
    assert.equal(await haft.total('haft_rooms_members'), 0);
    assert.doesNotMatch(haft.child.lines.join('\n'), REPLACED);
    clients.forEach((client) => client.close());
    await haft.stop();
  });

  program(`${adapter}, --rooms off: the death of a worker is announced to the others immediately`, async (place) => {
    const haft = await haftWith(place, adapter);
    const clients = await gather(place, haft.url);
    const victim = clients[0].pid;
    const rest = clients.filter(({ pid }) => pid !== victim);
    clients.filter(({ pid }) => pid === victim).forEach((client) => client.socket.io.reconnection(false));
    process.kill(victim, 'SIGKILL');
    // 0.2 cannot be told of a death while it waits for an answer: it is asked once haft has noticed.
    if (adapter.endsWith('0.2')) await replaced(haft, victim);
    const began = performance.now();
    const [{ error, value }] = await rest[0].ask('sockets');
    place.say(`fetchSockets after a SIGKILL took ${(performance.now() - began).toFixed(1)} ms`);
    assert.equal(error, undefined, 'it does not wait for the dead');
    const missing = rest.filter(({ socket }) => !value.includes(socket.id));
    assert.equal(missing.length, 0, 'all clients of the others are found');

    await replaced(haft, victim);
    await until('the replacement to be heard', async () => {
      const [{ value }] = await rest[0].ask('side', 'hello');
      return value.length === WORKERS - 1 && value.every(({ pid }) => pid !== victim);
    });
    clients.forEach((client) => client.close());
    await haft.stop();
  });
}

program("Node's own primary: all clients are reached too", async (place) => {
  await everybodyIsReached(await gather(place, await nodeWith(place, ADAPTERS[0])));
});

program("Node's own primary: fetchSockets fails after the death of a worker", async (place) => {
  const clients = await gather(place, await nodeWith(place, ADAPTERS[0]));
  const victim = clients[0].pid;
  process.kill(victim, 'SIGKILL');
  const [{ error }] = await clients.find(({ pid }) => pid !== victim).ask('sockets');
  assert.match(error, /timeout reached/);
});

function haftWith(place, adapter) {
  const flags = ['--rooms', 'off', '--node-serialization', 'advanced', '--drain-timeout', '1s'];
  return place.haft('-w', `${WORKERS}`, ...flags, '--', 'node', SERVER, adapter);
}

/** One of two hosts, with half of the workers. */
async function hostWith(place, name, module, adapter, ...flags) {
  const folder = join(place.folder, name);
  mkdirSync(folder);
  const server = module === 'ESM' ? file('node-adapter-server.mjs') : SERVER;
  const all = ['-w', `${WORKERS / 2}`, ...flags, '--drain-timeout', '1s', '--', 'node', server, adapter];
  const haft = new Haft({ folder, child: (...command) => place.child(...command) }, all);
  await haft.ready();
  return haft;
}

async function nodeWith(place, adapter) {
  const relay = pathToFileURL(file(`../node_modules/${adapter}/dist/index.js`)).href;
  const variables = [`RELAY=${relay}`, 'SERIALIZATION=advanced'];
  const node = place.child('env', ...variables, 'node', file('node-primary.mjs'), `${WORKERS}`, SERVER, adapter);
  const [[, address]] = await node.heard(/^listening on (\S+)/);
  return `http://${address}`;
}

/** Clients on every worker, once the workers know each other. They use WebSocket only, which needs no stickiness. */
async function gather(place, ...urls) {
  const all = urls.flat();
  const clients = await inTurns(homes(24), 12, async (home, at) => {
    const client = await place.client(all[at % all.length], home, { transports: ['websocket'] }).connected();
    return Object.assign(client, await client.hello());
  });
  assert.equal(new Set(clients.map(({ pid }) => pid)).size, WORKERS, 'every worker has clients');
  const ids = clients.map(({ socket }) => socket.id).sort();
  for (const client of one(clients)) {
    await until('each worker to know all clients', async () => {
      const [{ value }] = await client.ask('sockets');
      return JSON.stringify(value?.sort()) === JSON.stringify(ids);
    });
  }
  return clients;
}

/** One client of each worker. */
function one(clients) {
  return [...new Map(clients.map((client) => [client.pid, client])).values()];
}

async function everybodyIsReached(clients) {
  for (const [index, client] of one(clients).entries()) {
    for (const size of [10, 3_000, 100_000]) {
      const payload = { index, text: 'äöü €', bytes: randomBytes(size) };
      const heard = clients.map((each) => each.next('all'));
      await client.ask('broadcast', payload);
      for (const [got] of await Promise.all(heard)) assert.deepEqual(got, payload, 'a broadcast reaches all');
    }
  }

  const members = clients.filter((_, index) => index % 3 === 0);
  for (const member of members) await member.ask('join', 'room');
  const strangers = clients.filter((client) => !members.includes(client));
  let overheard = 0;
  strangers.forEach(({ socket }) => socket.on('all', () => overheard++));
  const inRoom = members.map((each) => each.next('all'));
  await strangers[0].ask('to room', 'room', randomBytes(70_000));
  await Promise.all(inRoom);

  const bytes = randomBytes(1_000);
  for (const { socket } of clients) socket.on('question', (payload, answer) => answer(bytes.equals(payload)));
  const [{ value: answers }] = await clients[0].ask('ask', bytes);
  assert.equal(answers.length, clients.length, 'everybody acknowledges a broadcast');
  assert.ok(answers.every(Boolean), 'with the bytes that were sent');
  assert.equal(overheard, 0, 'who is not in the room hears nothing');

  for (const client of one(clients)) {
    const [{ value }] = await client.ask('side', { from: client.pid });
    assert.equal(value.length, WORKERS - 1, 'the other workers answer');
    assert.ok(value.every(({ pid, payload }) => pid !== client.pid && payload.from === client.pid));
  }
}

function replaced(haft, victim) {
  return until('the dead worker to be replaced', async () => {
    const { slots } = await haft.status();
    return slots.every(({ pid, state }) => pid !== victim && state === 'ready');
  });
}

// Socket.IO's connectionStateRecovery with --affinity session: clients of one address that lose their connections come
// back to any worker, and each has its id, rooms, data and what it has missed again.

import assert from 'node:assert/strict';

import { file } from './lib/files.mjs';
import { Home } from './lib/home.mjs';
import { versions } from './lib/node-versions.mjs';
import { beside } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const CLIENTS = 6;
const ROUNDS = 4;

for (const { name, path } of versions) {
  beside(`${name}: ${CLIENTS} of ${CLIENTS} clients of one address are recovered, again and again`, (place) => {
    return recovered(place, { transports: ['websocket'] }, path);
  });
}

beside('clients that poll', (place) => recovered(place, { transports: ['polling'] }, 'node'));

beside('messages as structured clones', (place) => {
  return recovered(place, {}, '--node-serialization', 'advanced', '--', 'node');
});

async function recovered(place, options, ...node) {
  const command = node.includes('--') ? node : ['--', ...node];
  const haft = await place.haft('-w', '3', '--affinity', 'session', ...command, file('recovery-server.cjs'));
  const clients = await come(place, haft, options);
  const slots = new Set(clients.map(({ slot }) => slot));
  assert.equal(slots.size, 3, 'clients of one address are spread');
  let moved = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const ids = clients.map(({ client }) => client.socket.id);
    clients.forEach(({ client }) => client.socket.io.engine.close());
    await back(clients, round + 2);
    for (const [index, it] of clients.entries()) {
      const { client, room } = it;
      assert.ok(client.socket.recovered, `client ${index} is recovered in round ${round}`);
      assert.equal(client.socket.id, ids[index]);
      const [now] = await client.ask('where');
      assert.deepEqual({ ...now, pid: 0, slot: 0 }, { recovered: true, room, began: true, bytes: room, pid: 0, slot: 0 });
      moved += now.slot !== it.slot;
      it.slot = now.slot;
      // It is in its room, and has another offset afterwards.
      const heard = client.next('said');
      await client.ask('say', room, `round ${round}`);
      const [text, bytes] = await heard;
      assert.deepEqual([text, String(bytes)], [`round ${round}`, `round ${round}`]);
    }
    assert.ok(new Set(clients.map(({ slot }) => slot)).size > 1, 'clients of one address stay spread');
  }
  place.say(`${moved} of ${CLIENTS * ROUNDS} were recovered by another worker`);
  await until('each to be counted', async () => (await haft.total('haft_worker_clients_recovered_total')) === CLIENTS * ROUNDS);
  assert.equal((await haft.routed()).address, 0);
  clients.forEach(({ client }) => client.close());
  await haft.stop();
}

beside('what is said while a client is away reaches it in the other worker that it comes back to', async (place) => {
  const haft = await place.haft('-w', '2', '--affinity', 'session', '--', 'node', file('recovery-server.cjs'));
  const clients = await come(place, haft, { reconnection: false });
  {
    const slot = 0;
    const [away, here] = clients.filter((it) => it.slot === slot && it.client.connects === 1);
    const missed = [];
    away.client.socket.on('said', (text, bytes) => missed.push([text, String(bytes)]));
    away.client.socket.io.engine.close();
    await until('the worker to know', async () => (await haft.total('haft_worker_sessions')) === place.clients.length - 1);
    await here.client.ask('say', away.room, 'while you were away');
    // Its worker has more sessions than the other one, when it comes back.
    clients.filter((it) => it.slot !== slot).forEach(({ client }) => client.close());
    await until('the others to leave', async () => (await haft.counts('haft_worker_sessions', 'slot'))[1 - slot] === 0);
    away.client.socket.connect();
    await back([away], 2);
    assert.ok(away.client.socket.recovered);
    assert.equal((await away.client.ask('where'))[0].slot, 1 - slot);
    await until('what it has missed', () => missed.length > 0);
    assert.deepEqual(missed, [['while you were away', 'while you were away']]);
  }
  place.clients.forEach((client) => client.close());
  await haft.stop();
});

beside('what no worker has is not waited for, and a client comes in all the same', async (place) => {
  const haft = await place.haft('-w', '2', '--affinity', 'session', '--', 'node', file('recovery-server.cjs'));
  const clients = await come(place, haft, {});
  const { slots } = await haft.status();
  process.kill(slots[0].pid, 'SIGKILL');
  await until('its replacement', async () => (await haft.ledger()).respawned === 1);
  const lost = clients.filter(({ slot }) => slot === 0);
  await back(lost, 2);
  for (const { client } of lost) {
    assert.equal(client.socket.recovered, false);
    assert.equal((await client.ask('where'))[0].recovered, false);
  }
  clients.forEach(({ client }) => client.close());
  await haft.stop();
});

/** Clients of one address, each in a room of its own. */
async function come(place, haft, options, count = CLIENTS) {
  const home = new Home('127.0.0.1');
  const clients = [];
  for (let number = 0; number < count; number++) {
    const client = await place.client(haft.url, home, options).connected();
    const room = `room ${number}`;
    // Its offset is the id of a packet that it has heard.
    const first = client.next('first');
    const [{ slot }] = await client.ask('begin', room);
    await first;
    clients.push({ client, room, slot });
  }
  return clients;
}

function back(clients, connects) {
  return until('all to be back', () => clients.every(({ client }) => client.connects === connects && client.socket.connected));
}

beside('a replaced worker that goes on with its sessions gives those that come back to the new ones', async (place) => {
  const flags = ['--affinity', 'session', '--drain-timeout', '600s'];
  const haft = await place.haft('-w', '2', ...flags, '--', 'node', file('recovery-server.cjs'));
  const clients = await come(place, haft, {});
  assert.equal((await haft.post('/reload')).status, 202);
  await until('the reload', async () => (await haft.status()).reload.state === 'done', { within: 60_000 });
  // One client of each worker stays, and so the worker does.
  const stay = [0, 1].map((slot) => clients.find((it) => it.slot === slot));
  const cut = clients.filter((it) => !stay.includes(it));
  cut.forEach(({ client }) => client.socket.io.engine.close());
  await back(cut, 2);
  const { slots } = await haft.status();
  for (const { client } of cut) {
    assert.ok(client.socket.recovered);
    const [{ pid, slot }] = await client.ask('where');
    assert.equal(pid, slots[slot].pid, 'it is with a worker of the new generation');
  }
  assert.equal(await haft.total('haft_workers_draining'), 2);
  clients.forEach(({ client }) => client.close());
  await until('the old workers to end', async () => (await haft.total('haft_workers_draining')) === 0, { within: 60_000 });
  await haft.stop();
});

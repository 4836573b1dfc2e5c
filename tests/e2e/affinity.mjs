// Clients of one address that stick by what their first request says: users in one room meet in one worker, and a user's
// tabs too, whatever their order.

import assert from 'node:assert/strict';

import { who } from './lib/app.mjs';
import { Home } from './lib/home.mjs';
import { file } from './lib/files.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const WORKERS = 4;
const ROOMS = 12;
const POLLING = { transports: ['polling'] };
const BOTH = { transports: ['polling', 'websocket'] };

program('two users in each room by the query, one that polls and one that upgrades', async (place) => {
  const haft = await started(place, 'query:room');
  const home = new Home('127.0.0.1');
  const rooms = await meet(place, haft, home, (room) => ({ query: { room } }));
  assert.ok(new Set(rooms.values()).size > 1, `rooms are spread over workers: ${[...rooms.values()]}`);
  await haft.settled(() => home.opened);
  const routed = await haft.routed();
  assert.equal(routed.address, 0, 'each request says its room');
  assert.deepEqual(await criteria(haft), { 'query:room': { decided: routed.query, absent: 0, too_long: 0 } });
  await haft.stop();
});

program('by a cookie, escaped as it was set, and without one by the address', async (place) => {
  const haft = await started(place, 'cookie:uid');
  await meet(place, haft, new Home('127.0.0.1'), (user) => ({ extraHeaders: { Cookie: `theme=dark; uid=${encodeURIComponent(user)}` } }));
  const before = await haft.routed();
  assert.ok(before.cookie > 0 && before.address === 0);
  const workers = await Promise.all(Array.from({ length: 6 }, () => worker(place, haft, BOTH)));
  assert.equal(new Set(workers.map(({ slot }) => slot)).size, 1, 'those without a cookie have one address');
  assert.ok((await haft.routed()).address > 0);
  await haft.stop();
});

program('sessions outlive a reload where they come first in the list', async (place) => {
  const haft = await started(place, 'session,header:x-user,ip', '--drain-timeout', '30s');
  const options = (user) => ({ ...POLLING, extraHeaders: { 'X-User': user } });
  const clients = await Promise.all(['ann', 'bob', 'ann', 'bob'].map((user) => opened(place, haft, options(user))));
  const slots = (await Promise.all(clients.map(who))).map(({ slot }) => slot);
  assert.deepEqual(slots.slice(0, 2), slots.slice(2), 'who is opened by the same user is in the same slot');
  assert.equal((await haft.post('/reload')).status, 202);
  await until('the reload to be over', async () => (await haft.status()).reload?.state === 'done');
  for (const client of clients) {
    assert.deepEqual(await client.ask('echo', 'still here'), ['still here']);
    assert.deepEqual([client.connects, client.disconnects], [1, []], 'its worker goes on with it');
  }
  // The user is in the same slot, whose worker is another.
  const again = await worker(place, haft, options('ann'));
  assert.equal(again.slot, slots[0]);
  clients.forEach((client) => client.close());
  await haft.stop();
});

program('a slot that is drained gives its rooms to another, and gets them back', async (place) => {
  const haft = await started(place, 'path:2,query:room');
  const options = (room) => ({ ...POLLING, query: { room: `room ${room}` } });
  const one = await worker(place, haft, options(1));
  assert.equal((await haft.post(`/drain?slot=${one.slot}`)).status, 200);
  const elsewhere = await worker(place, haft, options(1));
  assert.notEqual(elsewhere.slot, one.slot);
  assert.equal((await haft.post(`/undrain?slot=${one.slot}`)).status, 200);
  assert.equal((await worker(place, haft, options(1))).slot, one.slot, 'it comes back when its slot does');
  await haft.stop();
});

async function started(place, affinity, ...flags) {
  return place.haft('-w', `${WORKERS}`, '--affinity', affinity, ...flags, '--', process.execPath, file('session-server.cjs'));
}

async function opened(place, haft, options, home = new Home('127.0.0.1')) {
  const client = place.client(haft.url, home, options);
  await client.connected();
  return client;
}

async function worker(place, haft, options) {
  const client = await opened(place, haft, options);
  const where = await who(client);
  client.close();
  return where;
}

/** Two users in each of some rooms; yields the slot of each room. */
async function meet(place, haft, home, options) {
  const rooms = new Map();
  for (let number = 0; number < ROOMS; number++) {
    const room = `room & co. ${number}`;
    const both = [POLLING, BOTH].map((transports) => opened(place, haft, { ...transports, ...options(room) }, home));
    const clients = await Promise.all(both);
    await clients[1].upgraded();
    const [one, other] = await Promise.all(clients.map(who));
    assert.equal(one.pid, other.pid, `both users of ${room} are with one worker`);
    for (const client of clients) {
      assert.deepEqual([client.connects, client.errors, client.disconnects], [1, [], []]);
      client.close();
    }
    rooms.set(room, one.slot);
  }
  return rooms;
}

async function criteria(haft) {
  const { routing } = await haft.status();
  const samples = (await haft.samples()).filter(({ name }) => name === 'haft_affinity_criteria_total');
  const counts = {};
  for (const { criterion, ...outcomes } of routing.criteria) {
    counts[criterion] = outcomes;
    for (const [outcome, count] of Object.entries(outcomes)) {
      const sample = samples.find(({ labels }) => labels === `criterion="${criterion}",outcome="${outcome}"`);
      assert.equal(sample?.value, count, `/metrics and /status tell the same of ${criterion}, ${outcome}`);
    }
  }
  return counts;
}

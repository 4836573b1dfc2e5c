// All clients have one address, as behind one NAT: with --affinity session they are spread over all workers all the same,
// and each request of a session reaches the worker that knows it.

import assert from 'node:assert/strict';

import { who } from './lib/app.mjs';
import { file } from './lib/files.mjs';
import { Home } from './lib/home.mjs';
import { versions } from './lib/node-versions.mjs';
import { tagOf } from './lib/preload-tag.mjs';
import { program } from './lib/program.mjs';
import { inTurns } from './lib/wait.mjs';

const WORKERS = 4;
const SESSIONS = 400;
/** Of the worker with most sessions, to the mean of all. */
const MOST = 1.1;
/** How many clients do the same thing at the same time. */
const AT_ONCE = 40;

program(`the built-in worker: ${SESSIONS} sessions of one address`, (place) => spread(place, SESSIONS));

for (const [index, { name, path }] of versions.entries()) {
  // Both kinds of program with every version; many clients with one of them, in turn, for the sake of time.
  for (const [kind, [style, server]] of [['CommonJS', 'session-server.cjs'], ['ECMAScript', 'session-server.mjs']].entries()) {
    const sessions = kind === index % 2 ? SESSIONS : SESSIONS / 10;
    program(`${name}, ${style}: ${sessions} sessions of one address`, (place) => {
      return spread(place, sessions, '--', path, file(server));
    });
  }
}

async function spread(place, sessions, ...command) {
  const haft = await place.haft('-w', `${WORKERS}`, '--affinity', 'session', ...command);
  const home = new Home('127.0.0.1');
  const members = Array.from({ length: sessions }, (_, index) => ({ upgrades: index % 2 === 0 }));
  await inTurns(members, AT_ONCE, async (member) => {
    const transports = member.upgrades ? ['polling', 'websocket'] : ['polling'];
    member.client = place.client(haft.url, home, { transports });
    await member.client.connected();
    member.worker = await who(member.client);
    member.id = member.client.socket.io.engine.id;
    if (member.upgrades) await member.client.upgraded();
  });
  // With all sessions open.
  await inTurns(members, AT_ONCE, async ({ client, upgrades }) => {
    assert.deepEqual(await client.ask('echo', client.socket.id), [client.socket.id]);
    assert.equal(client.transport, upgrades ? 'websocket' : 'polling');
  });
  for (const { client } of members) {
    assert.deepEqual(client.errors, [], 'no error was reported to a client, no "Session ID unknown" either');
    assert.deepEqual([client.connects, client.disconnects], [1, []], 'one session each');
  }

  const { slots } = await haft.status();
  const counts = new Array(WORKERS).fill(0);
  for (const { id, worker } of members) {
    const { slot, generation } = tagOf(id) ?? assert.fail('the session has no tag');
    assert.deepEqual([slot, generation], [worker.slot, 0], 'the tag names the worker that has the session');
    assert.equal(worker.pid, slots[slot].pid);
    counts[slot]++;
  }
  assert.equal(counts.reduce((sum, count) => sum + count), sessions);
  const ratio = Math.max(...counts) / (sessions / WORKERS);
  assert.ok(ratio <= MOST, `${counts} sessions a worker: the most are ${ratio.toFixed(2)} times the mean`);

  const routed = await haft.routed();
  assert.equal(routed.opening, sessions, 'each handshake, and nothing else, went to the least loaded');
  assert.equal(routed.lost_session, 0);
  assert.equal(routed.address, 0, 'all other requests named their session');
  members.forEach(({ client }) => client.close());
  const ledger = await haft.settled(() => home.opened);
  assert.deepEqual([ledger.refused, ledger.respawned], [0, 0]);
  place.say(`${counts} sessions a worker (the most: ${ratio.toFixed(2)} times the mean), ${routed.session} requests of sessions`);
  await haft.stop();
}

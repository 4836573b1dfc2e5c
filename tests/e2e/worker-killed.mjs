// A worker dies: its clients come back by themselves, to the same slot; the clients of the others notice nothing.

import assert from 'node:assert/strict';

import { echoes, who } from './lib/app.mjs';
import { assertAllStuck, crowd } from './lib/crowd.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

program('a killed worker costs only its own clients a reconnection', async (place) => {
  const haft = await place.haft('-w', '4');
  const all = await crowd(place, haft.url, { addresses: 30, each: 2 });
  await assertAllStuck(all);
  const { members } = all;

  const victim = members[0].worker;
  const its = members.filter(({ worker }) => worker.slot === victim.slot);
  const others = members.filter(({ worker }) => worker.slot !== victim.slot);
  const sessions = others.map(({ client }) => client.socket.id);
  process.kill(victim.pid, 'SIGKILL');

  await until('all its clients to have a second session', () => its.every(({ client }) => client.connects === 2));
  await inTurns(its, 20, async ({ client }) => {
    assert.equal(client.disconnects.length, 1, 'one loss');
    const now = await who(client);
    assert.equal(now.slot, victim.slot, 'the same slot');
    assert.notEqual(now.pid, victim.pid, 'filled by another process');
    await echoes(client);
  });

  await inTurns(others, 20, async ({ client, worker }) => {
    await echoes(client);
    assert.deepEqual(await who(client), worker, 'the others stay where they were');
  });
  for (const { client } of others) {
    assert.deepEqual(client.disconnects, [], 'the others lost nothing');
    assert.deepEqual(client.errors, [], 'the others saw no error');
  }
  assert.deepEqual(others.map(({ client }) => client.socket.id), sessions, 'the others kept their sessions');

  const ledger = await haft.ledger();
  assert.equal(ledger.respawned, 1, 'one worker was replaced');
  assert.equal(ledger.refused, 0, 'while it was away its clients waited');
  place.say(`${its.length} clients came back to slot ${victim.slot}, ${others.length} noticed nothing`);
  await haft.stop();
});

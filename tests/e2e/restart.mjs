// The whole server is stopped and started again on the same port: every client comes back by itself.

import assert from 'node:assert/strict';

import { echoes, who } from './lib/app.mjs';
import { assertAllStuck, crowd } from './lib/crowd.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

program('after a restart all clients come back, to the same slots', async (place) => {
  const before = await place.haft('-w', '4');
  const all = await crowd(place, before.url, { addresses: 30, each: 2 });
  await assertAllStuck(all);
  const { members } = all;
  await before.stop();
  await until('all clients to have lost their session', () => members.every(({ client }) => !client.socket.connected));

  const after = await place.haft('-w', '4', '-l', before.address);
  assert.equal(after.address, before.address, 'the same port');
  await until('all clients to have a second session', () => members.every(({ client }) => client.connects === 2));
  await inTurns(members, 20, async ({ client, worker }) => {
    assert.equal(client.disconnects.length, 1, 'one loss');
    const now = await who(client);
    assert.equal(now.slot, worker.slot, 'the same slot: the choice needs no memory');
    assert.notEqual(now.pid, worker.pid, 'filled by another process');
    await echoes(client);
  });
  place.say(`${members.length} clients came back`);
  await after.stop();
});

// The master is killed without warning: no worker is left behind, and what it left does not hinder the next start.

import assert from 'node:assert/strict';

import { echoes, who } from './lib/app.mjs';
import { assertAllStuck, crowd } from './lib/crowd.mjs';
import { file } from './lib/files.mjs';
import { alive } from './lib/haft.mjs';
import { homes } from './lib/home.mjs';
import { beside } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

beside('after the death of the master its workers end, and a new start brings the clients back', async (place) => {
  const before = await place.haft('-w', '4');
  const all = await crowd(place, before.url, { addresses: 12, each: 2 });
  await assertAllStuck(all);
  const { members } = all;
  await before.status();
  assert.deepEqual(await before.child.end('SIGKILL'), { code: null, signal: 'SIGKILL' });
  await until('the end of all workers', () => [...before.workers].every((pid) => !alive(pid)), { within: 60_000 });

  // The socket file of the admin page is still there: a dead one, which is replaced.
  const after = await place.haft('-w', '4', '-l', before.address);
  await until('all clients to have a second session', () => members.every(({ client }) => client.connects === 2));
  await inTurns(members, 12, async ({ client, worker }) => {
    assert.equal((await who(client)).slot, worker.slot, 'the same slot');
    await echoes(client);
  });
  place.say(`${before.workers.size} workers ended, ${members.length} clients came back`);
  await after.stop();
});

beside("Node's own workers end their sessions after the master's death, and a new start finds the port free", async (place) => {
  const command = ['--', 'node', file('node-server.mjs'), 'http:127.0.0.1:0'];
  const before = await place.haft('-w', '2', ...command);
  const client = await place.client(before.url, homes(1)[0]).connected();
  await before.status();
  await before.child.end('SIGKILL');
  await until('the end of all workers', () => [...before.workers].every((pid) => !alive(pid)), { within: 60_000 });
  const after = await place.haft('-w', '2', '-l', before.address, ...command);
  await until('the client to have a second session', () => client.connects === 2);
  await echoes(client);
  await after.stop();
});

// What haft is for: many clients, many workers, each request its own TCP connection, and not one lost session.

import assert from 'node:assert/strict';

import { assertAllStuck, crowd, workers } from './lib/crowd.mjs';
import { opened } from './lib/home.mjs';
import { program } from './lib/program.mjs';

program('240 clients from 60 addresses stay on their worker', async (place) => {
  const haft = await place.haft('-w', '4');
  const all = await crowd(place, haft.url);
  await assertAllStuck(all);
  const { homes, members } = all;

  const { slots } = await haft.status();
  const known = slots.map(({ slot, pid }) => `slot ${slot} pid ${pid}`).sort();
  assert.deepEqual(workers(members), known, 'each of the four workers has clients, and is who it says it is');

  members.forEach(({ client }) => client.close());
  const ledger = await haft.settled(() => opened(homes));
  assert.equal(ledger.refused, 0, 'none was refused');
  assert.equal(ledger.respawned, 0, 'no worker died');
  place.say(`${members.length} clients, ${ledger.delivered} connections delivered, 0 refused`);
  await haft.stop();
});

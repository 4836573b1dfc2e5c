// The counter-proof: the same clients without affinity. If they did not fail, the test of stickiness would show nothing.

import assert from 'node:assert/strict';

import { assertMostUnknown, crowd, failures } from './lib/crowd.mjs';
import { opened } from './lib/home.mjs';
import { program } from './lib/program.mjs';

program('without affinity most polling clients fail with 400', async (place) => {
  const haft = await place.haft('-w', '4', '--affinity', 'none');
  const { homes, members } = await crowd(place, haft.url, { pollingOnly: true, options: { reconnection: false } });
  assertMostUnknown(members);

  members.forEach(({ client }) => client.close());
  const ledger = await haft.settled(() => opened(homes));
  assert.equal(ledger.refused, 0, 'the workers said 400; haft itself refused nobody');
  place.say(failures(members));
  await haft.stop();
});

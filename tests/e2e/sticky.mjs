// What haft is for: many clients, many workers, each request its own TCP connection, and not one lost session.

import { assertAllServed } from './lib/crowd.mjs';
import { program } from './lib/program.mjs';

program('240 clients from 60 addresses stay on their worker', async (place) => {
  const haft = await place.haft('-w', '4');
  await assertAllServed(place, haft);
});

// The client side of these tests, tried on npm's own server. It must pass where it should (one process) and fail where
// it should (Node's cluster, which spreads connections round robin): else a green result elsewhere would mean nothing.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';

import { assertAllStuck, assertMostUnknown, crowd, failures } from './lib/crowd.mjs';
import { opened } from './lib/home.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const SERVER = fileURLToPath(new URL('lib/npm-server.mjs', import.meta.url));

async function start(place, ...args) {
  const server = place.child(process.execPath, SERVER, ...args);
  const [[, address]] = await server.heard(/^listening on (\S+)/);
  return { server, url: `http://${address}` };
}

program('npm, one process: all are served, and each request is a connection of its own', async (place) => {
  const { server, url } = await start(place, 'single');
  const all = await crowd(place, url);
  await assertAllStuck(all);
  const { homes, members } = all;

  members.forEach(({ client }) => client.close());
  const seen = await until('a request for each connection', () => {
    const lines = server.lines.filter((line) => line.startsWith('from ')).map((line) => line.split(' '));
    return lines.length === opened(homes) && lines;
  });
  assert.ok(seen.every(([, , number]) => number === '1'), 'no connection carried a second request');
  const addresses = new Set(seen.map(([, address]) => address));
  assert.deepEqual([...addresses].sort(), homes.map(({ address }) => address).sort(), 'each from its own address');
  place.say(`${members.length} clients, ${seen.length} requests from ${addresses.size} addresses`);
});

program('npm, Node cluster round robin: most fail with 400', async (place) => {
  const { url } = await start(place, 'cluster', '4');
  const { members } = await crowd(place, url, { pollingOnly: true, options: { reconnection: false } });
  assertMostUnknown(members);
  place.say(failures(members));
});

// A program of one's own as the worker: the example that is built on axum, socketioxide and haft's library.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { fetchText } from './lib/fetch.mjs';
import { homes, opened } from './lib/home.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

/** `cargo test` builds the examples too. */
const FOLDER = process.env.EXAMPLES ?? fileURLToPath(new URL('../../target/debug/examples', import.meta.url));
const EXAMPLE = `${FOLDER}/socketio`;

program("an application on haft's library serves real clients", async (place) => {
  assert.ok(existsSync(EXAMPLE), `${EXAMPLE} is missing: cargo build --examples makes it`);
  const haft = await place.haft('-w', '3', '--', EXAMPLE);
  const sources = homes(20);
  const slotOf = (home) => fetchText(new URL('/', haft.url), home);

  const slots = await inTurns(sources, 10, async (home, index) => {
    const before = await slotOf(home);
    const [one, other] = [['polling'], ['polling', 'websocket']].map((transports) => place.client(haft.url, home, { transports }));
    await Promise.all([one.connected(), other.connected()]);
    await other.upgraded();
    const sent = { from: home.address, index };
    for (const client of [one, other]) assert.deepEqual(await client.ask('echo', sent), [sent]);
    // What is said goes to all on this worker, so others are heard too.
    const said = [];
    other.socket.on('said', (text) => said.push(text));
    one.socket.emit('say', home.address);
    await until(`${home.address} to hear its neighbour`, () => said.includes(home.address));
    assert.equal(await slotOf(home), before, 'the same slot afterwards');
    assert.deepEqual([...one.errors, ...other.errors], []);
    return before;
  });
  assert.deepEqual([...new Set(slots)].sort(), ['slot 0\n', 'slot 1\n', 'slot 2\n'], 'all slots serve');

  place.clients.forEach((client) => client.close());
  assert.equal((await haft.settled(() => opened(sources))).refused, 0);
  await haft.stop();
});

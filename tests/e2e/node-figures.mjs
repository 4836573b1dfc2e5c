// What an unmodified Node program reports by the preload: sessions by transport, messages, bytes, ends; and that the
// counters of a worker that has died go on with the next.

import assert from 'node:assert/strict';

import { file } from './lib/files.mjs';
import { Home } from './lib/home.mjs';
import { versions } from './lib/node-versions.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const ECHOES = 20;
/** More than all that is not the echoes themselves. */
const LONG = 'x'.repeat(50_000);

for (const { name, path } of versions) {
  program(`${name}: messages, bytes, transports and ends are counted, and outlive the worker`, async (place) => {
    const haft = await place.haft('-w', '1', '--affinity', 'session', '--', path, file('session-server.cjs'));
    const reported = async () => (await haft.status()).slots[0].reported ?? {};
    /** What the page holds once it holds this: it is written once a second. */
    const once = (what, holds) => until(what, async () => {
      const now = await reported();
      return holds(now) ? now : Promise.reject(new Error(JSON.stringify(now)));
    });
    const home = new Home('127.0.0.1');
    const polling = place.client(haft.url, home, { transports: ['polling'] });
    const upgraded = place.client(haft.url, home, { transports: ['polling', 'websocket'] });
    await Promise.all([polling.connected(), upgraded.connected()]);
    await upgraded.upgraded();
    const both = ({ polling_sessions: one, websocket_sessions: other }) => one === 1 && other === 1;
    const before = await once('both sessions, and all that was said until now', (now) => {
      return both(now) && now.sessions_opened === 2 && now.upgrades === 1 && now.messages_in >= 2;
    });
    assert.ok(before.connections >= 2 && before.open_connections >= 1, JSON.stringify(before));

    for (let round = 0; round < ECHOES; round += 1) {
      const client = round % 2 === 0 ? polling : upgraded;
      assert.deepEqual(await client.ask('echo', LONG), [LONG]);
    }
    const sum = LONG.length * ECHOES;
    const after = await once('each message, and the bytes of connections that are open', (now) => {
      return now.messages_in === before.messages_in + ECHOES && now.bytes_in - before.bytes_in > sum;
    });
    assert.equal(after.messages_out - before.messages_out, 2 * ECHOES, 'each was acknowledged and sent back');
    for (const [way, times] of [['bytes_in', 1], ['bytes_out', 2]]) {
      const bytes = after[way] - before[way];
      assert.ok(bytes > sum * 0.9 && bytes < sum * times * 1.5, `${way}: ${bytes} for ${times} times ${sum} of messages`);
    }

    polling.close();
    upgraded.close();
    const ended = await once('both ends', (now) => now.polling_sessions === 0 && now.websocket_sessions === 0);
    const ends = Object.entries(ended).filter(([name]) => name.startsWith('closed_')).reduce((all, [, count]) => all + count, 0);
    assert.equal(ends, 2, JSON.stringify(ended));

    const [{ pid }] = (await haft.status()).slots;
    process.kill(pid, 'SIGKILL');
    await until('the next worker', async () => (await haft.status()).slots[0].respawned === 1);
    const next = await once('its counters go on, its gauges do not', (now) => now.open_connections === 0);
    for (const name of ['messages_in', 'messages_out', 'bytes_in', 'sessions_opened', 'upgrades', 'connections']) {
      assert.ok(next[name] >= ended[name], `${name}: ${next[name]} after ${ended[name]}`);
    }
    await haft.stop();
  });
}

// Where a program's Socket.IO servers are is learnt from the program: --affinity session needs no --path.

import assert from 'node:assert/strict';

import { who } from './lib/app.mjs';
import { file } from './lib/files.mjs';
import { Home } from './lib/home.mjs';
import { request, to } from './lib/node-requests.mjs';
import { versions } from './lib/node-versions.mjs';
import { freePort } from './lib/ports.mjs';
import { tagOf } from './lib/preload-tag.mjs';
import { program } from './lib/program.mjs';
import { inTurns } from './lib/wait.mjs';

const WORKERS = 3;
const SESSIONS = 12;
const home = new Home('127.0.0.1');
const SERVER = file('session-paths-server.cjs');

for (const { name, path } of versions) {
  program(`${name}: three Socket.IO servers at paths of their own, and an Engine.IO`, async (place) => {
    const other = await freePort();
    const haft = await place.haft('-w', `${WORKERS}`, '--affinity', 'session', '--', path, SERVER, `${other}`);
    for (const [url, at] of [[haft.url, '/a/'], [haft.url, '/deep/b/'], [`http://127.0.0.1:${other}`, '/c/']]) {
      const before = await haft.routed();
      const clients = Array.from({ length: SESSIONS }, () => place.client(url, home, { path: at, transports: ['polling'] }));
      await inTurns(clients, 6, async (client) => {
        await client.connected();
        const { slot } = tagOf(client.socket.io.engine.id);
        assert.equal((await who(client)).slot, slot);
        assert.deepEqual(await client.ask('echo', at), [at]);
      });
      assert.deepEqual(clients.flatMap(({ errors }) => errors), []);
      const slots = new Set(clients.map((client) => tagOf(client.socket.io.engine.id).slot));
      assert.equal(slots.size, WORKERS, `sessions at ${at} of one address are spread`);
      assert.equal((await haft.routed()).opening - before.opening, SESSIONS);
    }
    // Its first request is known only when it has come.
    const ask = async (query) => (await request({ ...to(haft.address), path: `/engine/?EIO=4&transport=polling${query}` })).body;
    for (let n = 0; n < SESSIONS; n++) {
      const { sid } = JSON.parse((await ask('')).slice(1));
      assert.ok(tagOf(sid));
      const url = `${haft.url}/engine/?EIO=4&transport=polling&sid=${sid}`;
      const posted = await fetch(url, { method: 'POST', body: '4hello', headers: { connection: 'close', 'content-type': 'text/plain' } });
      assert.equal(await posted.text(), 'ok');
      assert.match(await ask(`&sid=${sid}`), /4hello/);
    }
    assert.equal((await haft.routed()).lost_session, 0);
    await haft.stop();
  });
}

program('--path beats what the program reports', async (place) => {
  const haft = await place.haft('-w', `${WORKERS}`, '--affinity', 'session', '--path', '/c/', '--', 'node', SERVER, `${await freePort()}`);
  const client = place.client(haft.url, home, { path: '/a/', transports: ['polling'] });
  await client.connected();
  const { opening, session } = await haft.routed();
  assert.deepEqual([opening, session], [0, 0], 'its requests went by their address');
  await haft.stop();
});

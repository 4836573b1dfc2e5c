// Deno and Bun, as npm packages carry them: what docs/node.md says of each.

import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { assertAllStuck, crowd } from './lib/crowd.mjs';
import { copy, file } from './lib/files.mjs';
import { Haft } from './lib/haft.mjs';
import { opened } from './lib/home.mjs';
import { beside } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const DENO = file('../node_modules/deno-2/deno');
const BUN = file('../node_modules/bun-1/bin/bun');
const SERVER = ['run', '-A', '--no-config', 'node-server.mjs', 'http:127.0.0.1:0'];
const troubles = async (haft) => haft.counts('haft_node_troubles_total', 'kind');

// The packages are for x86-64 and glibc.
if (process.arch !== 'x64') test('Deno and Bun are not tried on this machine', { skip: true }, () => {});
else if (!existsSync(DENO) || !existsSync(BUN)) throw new Error('npm ci has not installed Deno and Bun');
else tests();

function tests() {
  const STARTS = {
    'deno run': [DENO, ...SERVER],
    'deno task': [DENO, 'task', 'start'],
    'deno run below a shell': ['sh', '-c', `true; ${DENO} ${SERVER.join(' ')}; true`],
  };
  for (const [name, words] of Object.entries(STARTS)) {
    beside(`${name}: sticky by address, also after a reload`, async (place) => {
      project(place);
      const haft = await place.haft('-w', '2', '--', ...words);
      const all = await crowd(place, haft.url, { addresses: 6, each: 2 });
      await assertAllStuck(all);
      all.members.forEach(({ client }) => client.close());
      await haft.settled(() => opened(all.homes));
      const old = (await haft.status()).slots.map(({ pid }) => pid);
      assert.equal((await haft.post('/reload')).status, 202);
      await until('new workers, and the end of the old ones', async () => {
        const { slots } = await haft.status();
        return slots.every(({ state, pid }) => state === 'ready' && !old.includes(pid)) && old.every((pid) => !existsSync(`/proc/${pid}`));
      });
      await assertAllStuck(await crowd(place, haft.url, { addresses: 6, each: 2 }));
      await haft.stop();
    });
  }

  beside('a script of package.json that is plainly deno run has no process beside the worker', async (place) => {
    project(place);
    const haft = await place.haft('-w', '1', '--', 'npm', 'start');
    const { worker } = await (await fetch(`${haft.url}/haft/page.json`)).json();
    assert.equal(worker.pid, (await haft.status()).slots[0].pid);
    await haft.stop();
  });

  beside('Deno.serve() is reported, before haft gives up and within --start-timeout', async (place) => {
    const port = 20_000 + (process.pid % 10_000);
    writeFileSync(join(place.folder, 'serve.ts'), `Deno.serve({ port: ${port}, hostname: '127.0.0.1' }, () => new Response('served'));`);
    // Of two workers one gets the port, and the other ends at once.
    const { child } = new Haft(place, ['-w', '2', '--', DENO, 'run', '-A', '--no-config', 'serve.ts']);
    await child.heard(/listens by itself on 127\.0\.0\.1:\d+, and not on a server of haft's.*Deno\.serve.*node:http/);
    const { code } = await child.exited;
    assert.equal(code, 1);
    const alone = new Haft(place, ['-w', '1', '--start-timeout', '2s', '--', DENO, 'run', '-A', '--no-config', 'serve.ts']);
    await alone.child.heard(/not ready within --start-timeout: it listens by itself.*Deno\.serve.*node:http/);
    assert.ok((await troubles(alone)).own_listener >= 1);
    await alone.child.end('SIGKILL');
  });

  beside('deno serve is warned of', async (place) => {
    writeFileSync(join(place.folder, 'serve.ts'), 'export default { fetch: () => new Response("served") };');
    const { child } = new Haft(place, ['-w', '1', '--', DENO, 'serve', '-A', '--no-config', '--port', '0', 'serve.ts']);
    await child.heard(/deno serve listens by itself.*node:http and start it by deno run/);
    await child.end('SIGKILL');
  });

  for (const words of [['run', 'node-server.mjs'], ['node-server.mjs']]) {
    beside(`bun ${words[0]}: what it binds is reported and counted`, async (place) => {
      project(place);
      const haft = new Haft(place, ['-w', '1', '--start-timeout', '3s', '--', BUN, ...words, 'http:127.0.0.1:0']);
      await haft.child.heard(/bun listens by itself, without asking haft.*on Node or Deno/);
      await haft.child.heard(/not ready within --start-timeout: it listens by itself on 127\.0\.0\.1:\d+.*Bun.*node:http/);
      assert.ok((await troubles(haft)).own_listener >= 1);
      await haft.child.end('SIGKILL');
    });
  }
}

function project(place) {
  copy(place, 'node-server.mjs', 'node-app.cjs');
  writeFileSync(join(place.folder, 'package.json'), JSON.stringify({ scripts: { start: `${DENO} ${SERVER.join(' ')}` } }));
}

// Programs as launchers and frameworks start them: those that look for a free port first, that are forked, that handle
// signals from their beginning below a wrapper, that are debugged, and those of a Node that cannot take the preload.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { fetchText } from './lib/fetch.mjs';
import { file } from './lib/files.mjs';
import { Haft } from './lib/haft.mjs';
import { homes } from './lib/home.mjs';
import { versions } from './lib/node-versions.mjs';
import { freePort } from './lib/ports.mjs';
import { beside } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const { path: node } = versions.at(-1);
const GET_PORT = JSON.stringify(createRequire(import.meta.url).resolve('get-port'));
/** Without `--import` in NODE_OPTIONS. */
const OLD_NODE = file('../node_modules/node-18.17/bin/node');
const SERVER = 'const server = require("http").createServer((_, response) => response.end(`${process.pid}`));';

for (const dispatch of ['handover', 'kernel']) {
  beside(`${dispatch}: a program that looks for a free port, and listens on what it was shown, is served in all workers`, async (place) => {
    // As remix-serve does it.
    const script = program(place, `${SERVER} require(${GET_PORT})({ port: 3000 }).then((port) => server.listen(port));`);
    const flags = ['-w', '2', '--dispatch', dispatch, '--affinity', 'ip'];
    const haft = await place.haft(...flags, '--', node, script);
    const served = async () => {
      const { slots } = await haft.status();
      const pids = slots.map(({ pid }) => `${pid}`).sort();
      const answers = await Promise.all(homes(12).map((home) => fetchText(new URL('/', haft.url), home)));
      assert.deepEqual([...new Set(answers)].sort(), pids, 'each worker has a share');
    };
    await served();
    await reloaded(haft);
    await served();
    await haft.stop();
  });
}

for (const command of [['sh', '-c', 'node program.cjs; true'], ['npm', 'run', 'both']]) {
  beside(`a program below ${command[0]} that handles SIGTERM before it listens gets it once`, async (place) => {
    const note = JSON.stringify(join(place.folder, 'note'));
    // A second signal would end it before its time.
    program(place, `${SERVER}
      process.once('SIGTERM', () => server.close(() => setTimeout(() => {
        require('fs').appendFileSync(${note}, process.pid + '\\n');
        process.exit();
      }, 300)));
      setInterval(() => {}, 1000);
      server.listen(3000);`);
    writeFileSync(join(place.folder, 'package.json'), JSON.stringify({ scripts: { both: 'node -e 0 && node program.cjs' } }));
    const haft = await started(place, ['-w', '1', '--drain-timeout', '600s', '--', ...command]);
    // Over a connection that does not stay.
    const serving = await fetchText(new URL('/', haft.url), homes(1)[0]);
    await reloaded(haft);
    await until('its handler to have run', () => existsSync(JSON.parse(note)) && readFileSync(JSON.parse(note), 'utf8') === `${serving}\n`);
    await until('the end of the old worker', async () => (await haft.total('haft_workers_draining')) === 0);
    await haft.stop();
  });
}

beside('what a forked program sends is for what has forked it, and haft gives no advice', async (place) => {
  program(place, `${SERVER} server.listen(3000, () => process.send({ type: 'ready' }));`);
  const launcher = join(place.folder, 'launcher.cjs');
  writeFileSync(launcher, `require('child_process').fork('./program.cjs').on('message', ({ type }) => console.log('it is', type));`);
  const haft = await started(place, ['-w', '1', '--', 'sh', '-c', 'node launcher.cjs; true']);
  await haft.child.heard(/it is ready/);
  assert.match(await (await fetch(haft.url)).text(), /^\d+$/);
  assert.ok(!haft.child.lines.some((line) => /has no use for them/.test(line)), haft.child.tail());
  await haft.stop();
});

beside('after a reload the inspector is there again, on the same port', async (place) => {
  const script = program(place, `${SERVER} server.listen(3000);`);
  const port = await freePort();
  const haft = await place.haft('-w', '1', '--', node, `--inspect=${port}`, script);
  const target = async () => (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json())[0].id;
  const first = await target();
  await reloaded(haft);
  await until('another inspector', async () => (await target()) !== first);
  await haft.stop();
});

/** Makes the preload's file unreadable, in the same way for each start. */
const SHIM = `#!/bin/sh\nset -- "$@" --\nfor word in $NODE_OPTIONS; do case $word in /*) rm -f "$word";; esac; done\nexec ${OLD_NODE} "$1"\n`;

// The package is for x86-64.
const isPackaged = existsSync(OLD_NODE);
if (!isPackaged && process.arch === 'x64') throw new Error('npm ci has not installed Node 18.17');

if (isPackaged) beside('a Node that can take the preload in no way goes without it, where nothing needs it', async (place) => {
  program(place, `${SERVER} server.listen(3000);`);
  const shim = join(place.folder, 'node');
  writeFileSync(shim, SHIM, { mode: 0o755 });
  const haft = await place.haft('-w', '1', '--', shim, 'program.cjs');
  assert.match(await (await fetch(haft.url)).text(), /^\d+$/);
  const warned = haft.child.lines.filter((line) => /Node is older than 18\.18.*Workers go without it/.test(line));
  assert.equal(warned.length, 1, haft.child.tail());
  await reloaded(haft);
  assert.equal(haft.child.lines.filter((line) => /exited before it was ready/.test(line)).length, 2, 'the reload starts it once');
  await haft.stop();
});

if (isPackaged) beside('and is refused, with the cure, where something needs it', async (place) => {
  program(place, `${SERVER} server.listen(3000);`);
  const shim = join(place.folder, 'node');
  writeFileSync(shim, SHIM, { mode: 0o755 });
  const { child } = new Haft(place, ['-w', '1', '--affinity', 'session', '--', shim, 'program.cjs']);
  assert.equal((await child.exited).code, 2);
  assert.match(child.tail(), /cannot read haft's preload.*too old.*needed for --affinity session.*Node 18\.18 or later/);
});

function program(place, text) {
  const script = join(place.folder, 'program.cjs');
  writeFileSync(script, text);
  return script;
}

/** haft, with the newest Node in PATH. */
async function started(place, flags) {
  const haft = new Haft(place, flags, { under: ['env', `PATH=${dirname(node)}:${process.env.PATH}`] });
  await haft.ready();
  return haft;
}

async function reloaded(haft) {
  assert.equal((await haft.post('/reload')).status, 202);
  await until('the reload', async () => {
    const { reload } = await haft.status();
    assert.notEqual(reload.state, 'failed', reload.description);
    return reload.state === 'done';
  });
}

// Programs that cannot start, and what is seen of programs that can: their output, their inspector, their environment.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { file } from './lib/files.mjs';
import { Haft } from './lib/haft.mjs';
import { request } from './lib/node-requests.mjs';
import { freePorts } from './lib/ports.mjs';
import { beside } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

/** A program, and the line of its own that explains why it fails. */
const FAILING = [
  ['a syntax error', 'const = 1;', /^SyntaxError: /],
  ['an exception', 'throw new Error("the database is away");', /^Error: the database is away$/],
  ['a missing module', 'require("no-such-module");', /Cannot find module 'no-such-module'$/],
  ['a rejected promise', 'Promise.reject(new Error("no configuration"));', /Error: no configuration$/],
];

for (const [name, text, explanation] of FAILING) {
  beside(`${name}: the program's own words once, then the end`, async (place) => {
    writeFileSync(join(place.folder, 'failing.cjs'), text);
    const { child } = new Haft(place, ['-w', '2', '--', 'node', 'failing.cjs']);
    await child.heard(/worker exited before it was ready \(5 times\): giving up/);
    assert.deepEqual(await child.exited, { code: 1, signal: null });
    const explained = child.lines.filter((line) => explanation.test(line));
    assert.equal(explained.length, 1, `it is explained once:\n${child.tail()}`);
  });
}

beside('a program that binds its port by itself is reported', async (place) => {
  const text = 'require("net").createServer().listen({ port: 0, host: "127.0.0.1", exclusive: true });';
  writeFileSync(join(place.folder, 'exclusive.cjs'), text);
  const { child } = new Haft(place, ['-w', '1', '--start-timeout', '2s', '--', 'node', 'exclusive.cjs']);
  await child.heard(/listens with `exclusive: true`.*Leave that option out/);
  await child.heard(/not ready within --start-timeout: it listens by itself on 127\.0\.0\.1:\d+/);
});

beside('--prefix-output shows which worker has written a line', async (place) => {
  const server = [file('node-server.mjs'), 'http:127.0.0.1:0'];
  const haft = await place.haft('-w', '3', '--prefix-output', '--', 'node', ...server);
  const said = await haft.child.heard(/^\[w(\d)\] server 0 at /, 3);
  assert.deepEqual(said.map(([, slot]) => slot).sort(), ['0', '1', '2']);
  await haft.stop();
});

for (const [name, command] of [
  ['--inspect=PORT', (port) => ['node', `--inspect=127.0.0.1:${port}`]],
  ['NODE_OPTIONS', (port) => ['env', `NODE_OPTIONS=--inspect=127.0.0.1:${port}`, 'node']],
]) {
  beside(`each worker has an inspector: ${name}`, async (place) => {
    const port = await freePorts(3);
    const haft = await place.haft('-w', '3', '--', ...command(port), file('node-server.mjs'), 'http:127.0.0.1:0');
    const told = await haft.child.heard(/^Debugger listening on ws:\/\/127\.0\.0\.1:(\d+)\//, 3);
    assert.deepEqual(told.map(([, at]) => Number(at)).sort(), [port, port + 1, port + 2]);
    for (const at of [port, port + 1, port + 2]) {
      const { status, body } = await request({ host: '127.0.0.1', port: at, path: '/json/version' });
      assert.equal(status, 200, body);
    }
    assert.ok(!haft.child.lines.some((line) => line.includes('Starting inspector')), haft.child.tail());
    await haft.stop();
  });
}

beside('the environment passes through, and ids of workers only increase', async (place) => {
  writeFileSync(
    join(place.folder, 'worker.cjs'),
    `const { worker, isWorker } = require("node:cluster");
    const left = Object.keys(process.env).filter((name) => /^NODE_(CHANNEL|UNIQUE)/.test(name));
    console.log("worker", worker.id, isWorker, process.env.NODE_ENV, left.length);
    require("node:http").createServer().listen(0);`,
  );
  const haft = await place.haft('-w', '2', '--', 'env', 'NODE_ENV=production', 'node', 'worker.cjs');
  const said = /^worker (\d+) true production 0$/;
  for (let life = 0; life < 3; life++) {
    const seen = await haft.child.heard(said, 2 + life);
    const { slots } = await haft.status();
    process.kill(slots[0].pid, 'SIGKILL');
    await until('its replacement', async () => {
      const now = await haft.status();
      return now.slots[0].state === 'ready' && now.slots[0].pid !== slots[0].pid;
    });
    assert.equal(seen.length, 2 + life);
  }
  const ids = (await haft.child.heard(said, 5)).map(([, id]) => Number(id));
  assert.equal(new Set(ids).size, 5, 'no id is used twice');
  assert.deepEqual(ids.slice(2), ids.slice(2).sort((a, b) => a - b), 'a later worker has a higher id');
  assert.ok(Math.min(...ids) > 0, 'Node takes 0 for no worker');
  await haft.stop();
});

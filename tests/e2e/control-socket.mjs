// The control socket of a program that chooses its own port: what it is called, and that commands find it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { Child } from './lib/child.mjs';
import { file } from './lib/files.mjs';
import { BINARY } from './lib/haft.mjs';
import { program } from './lib/program.mjs';

/** A user's runtime folder, where haft has its sockets. */
function home(place) {
  const folder = join(place.folder, 'run');
  mkdirSync(folder, { mode: 0o700 });
  const { RUNTIME_DIRECTORY: _, ...env } = process.env;
  return { env: { ...env, XDG_RUNTIME_DIR: folder }, sockets: () => readdirSync(join(folder, 'haft')).sort() };
}

/** A haft of a Node program that waits so long and then takes any free port. */
function start(place, { env }, wait, ...flags) {
  return place.child('env', '-u', 'RUNTIME_DIRECTORY', `XDG_RUNTIME_DIR=${env.XDG_RUNTIME_DIR}`, BINARY, ...flags,
    '--drain-timeout', '2s', '--', 'node', file('node-server.mjs'), `http:127.0.0.1:0+${wait}`);
}

/** The port of a haft that listens, once its socket is called after it. */
async function port(haft) {
  const [[, port]] = await haft.heard(/control socket unix:.*\/node-server-(\d{4,})\.sock/);
  return port;
}

/** A command to a running haft: `{ code, text }`. */
function run({ env }, ...words) {
  return new Promise((resolve) => {
    execFile(BINARY, words, { env }, (error, out, err) => resolve({ code: error?.code ?? 0, text: out + err }));
  });
}

program('two programs of one name are told apart by their ports', async (place) => {
  const here = home(place);
  const hafts = [start(place, here, 0, '-w', '1'), start(place, here, 0, '-w', '1')];
  const names = [];
  for (const haft of hafts) names.push(`node-server-${await port(haft)}`);
  assert.deepEqual(here.sockets(), names.map((name) => `${name}.sock`).sort());
  for (const [at, name] of names.entries()) {
    const { code, text } = await run(here, 'status', '--name', name);
    assert.equal(code, 0, text);
    assert.match(text, new RegExp(`  ${name}  pid ${hafts[at].pid}  `));
  }
  const several = await run(here, 'status', '--name', 'node-server');
  assert.equal(several.code, 2);
  for (const name of names) assert.ok(several.text.includes(name), several.text);
  await hafts[0].end();
  const one = await run(here, 'status', '--name', 'node-server');
  assert.match(one.text, new RegExp(`  ${names[1]}  `), 'the only one is found without its port');
  await hafts[1].end();
  assert.deepEqual(here.sockets(), []);
});

program('a command that began before the port was known goes on, and logs have standard output', async (place) => {
  const here = home(place);
  const haft = start(place, here, 3000, '-w', '1');
  await haft.heard(/control socket unix:.*\/node-server\.sock/);
  const logs = new Child(BINARY, ['logs', '--follow'], { env: here.env });
  const listens = await port(haft);
  const [[, told]] = await logs.heard(/^\[w0\] server 0 at 127\.0\.0\.1:(\d+)$/);
  assert.equal(told, listens, 'the line that the program wrote once it listened');
  // Another one has the first name of this one now.
  const other = start(place, here, 60_000, '-w', '1');
  await other.heard(/control socket unix:.*\/node-server\.sock/);
  await fetch(`http://127.0.0.1:${listens}/haft/close`);
  logs.mustRun();
  await haft.end();
  assert.equal((await logs.exited).code, 0, 'it was followed to its end');
  await other.end('SIGKILL');
});

program('a killed haft leaves no name behind for the next', async (place) => {
  const here = home(place);
  const killed = start(place, here, 0, '-w', '1');
  const name = `node-server-${await port(killed)}`;
  await killed.end('SIGKILL');
  assert.deepEqual(here.sockets(), [`${name}.sock`]);
  const next = start(place, here, 0, '-w', '1');
  const now = `node-server-${await port(next)}`;
  assert.deepEqual(here.sockets(), [`${now}.sock`]);
  await next.end();
});

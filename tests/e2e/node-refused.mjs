// Programs that cannot listen and live on, as those of Express 5 do, which gives the error to the callback; and programs
// that end without an error.

import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { createSocket } from 'node:dgram';
import net from 'node:net';
import { join } from 'node:path';

import { packages } from './lib/files.mjs';
import { Haft, OwnListeners } from './lib/haft.mjs';
import { versions } from './lib/node-versions.mjs';
import { beside } from './lib/program.mjs';
import { until, within } from './lib/wait.mjs';

/** Nothing here may wait for it. */
const PATIENT = ['--start-timeout', '600s'];

/** Express 5: `listen` fails, and the program learns of it in its callback. */
const EXPRESS = `
  const { readFileSync } = require('node:fs');
  const port = Number(readFileSync('port', 'utf8'));
  const server = require('express')().listen(port, '127.0.0.1', (error) => {
    if (error) console.error('the callback got', error.code);
    else console.log('server 0 at', '127.0.0.1:' + server.address().port);
  });
  setInterval(() => {}, 1000);`;

for (const { name, path } of versions) {
  beside(`${name}: Express 5 whose port is in use: one start, and the reason`, async (place) => {
    const port = await held(place);
    write(place, EXPRESS, port);
    const { child } = new OwnListeners(place, ['-w', '2', ...PATIENT, '--', path, 'main.cjs']);
    assert.deepEqual(await within(60_000, 'the end', child.exited), { code: 1, signal: null });
    assert.match(child.tail(), new RegExp(`the program cannot listen on 127\\.0\\.0\\.1:${port}: the port is in use`));
    assert.match(child.tail(), /the program lives and listens on nothing/);
  });
}

beside('Express 5 whose port is in use after a reload: the reload has failed, and the old workers stay', async (place) => {
  write(place, EXPRESS, 0);
  const haft = new OwnListeners(place, ['-w', '2', ...PATIENT, '--', 'node', 'main.cjs']);
  await haft.ready();
  const before = await haft.status();
  const port = await held(place);
  write(place, EXPRESS, port);
  assert.equal((await haft.post('/reload')).status, 202);
  await until('the reload to have failed', async () => (await haft.status()).reload.state === 'failed', { within: 60_000 });
  const [[line]] = await haft.child.heard(/listens on nothing.*/);
  assert.match(line, new RegExp(`refused all that it asked for \\(127\\.0\\.0\\.1:${port}: the port is in use`));
  const pids = ({ slots }) => slots.map(({ pid }) => pid);
  assert.deepEqual(pids(await haft.status()), pids(before));
  await haft.stop();
});

beside('a program that is refused all and lives: giving up says what it was refused', async (place) => {
  const taken = createSocket('udp4');
  place.atEnd(() => new Promise((resolve) => taken.close(resolve)));
  await new Promise((resolve) => taken.bind(0, '127.0.0.1', resolve));
  write(place, `
    const socket = require('node:dgram').createSocket('udp4');
    socket.on('error', () => {}).bind(Number(require('node:fs').readFileSync('port', 'utf8')), '127.0.0.1');
    setInterval(() => {}, 1000);`, taken.address().port);
  const { child } = new OwnListeners(place, ['-w', '1', ...PATIENT, '--', 'node', 'main.cjs']);
  assert.deepEqual(await within(120_000, 'the end', child.exited), { code: 1, signal: null });
  const last = child.lines.find((line) => /giving up/.test(line)) ?? assert.fail(child.tail());
  assert.match(last, /5 times.*was refused: 127\.0\.0\.1, port \d+: .*in use/);
});

beside('a program that waits a second and tries again, or another port, is left alone', async (place) => {
  const port = await held(place);
  write(place, `
    const server = require('node:net').createServer();
    const port = Number(require('node:fs').readFileSync('port', 'utf8'));
    let tries = 0;
    server.on('error', () => setTimeout(() => server.listen(++tries < 3 ? port : 0, '127.0.0.1'), 1000));
    server.on('listening', () => console.log('server 0 at', '127.0.0.1:' + server.address().port));
    server.listen(port, '127.0.0.1');`, port);
  const haft = new OwnListeners(place, ['-w', '1', ...PATIENT, '--', 'node', 'main.cjs']);
  await haft.ready();
  assert.equal((await haft.ledger()).respawned, 0);
  await haft.stop();
});

beside('a program that takes its connections by message may be refused its own port', async (place) => {
  const port = await held(place);
  write(place, `
    const port = Number(require('node:fs').readFileSync('port', 'utf8'));
    require('node:net').createServer().on('error', () => {}).listen(port, '127.0.0.1');
    process.on('message', (message, socket) => socket && socket.end('taken'));
    setTimeout(() => process.send('ready'), 4000);`, port);
  const haft = await place.haft('-w', '1', '--wait-ready', '--node-style', 'classic', ...PATIENT, '--', 'node', 'main.cjs');
  assert.equal((await haft.ledger()).respawned, 0);
  await haft.stop();
});

beside('a program that only returns: giving up says that it is to go on, and how its standard input is', async (place) => {
  write(place, 'console.log("done"); process.exit();', 0);
  const { child } = new Haft(place, ['-w', '1', '--', 'node', 'main.cjs']);
  assert.deepEqual(await within(60_000, 'the end', child.exited), { code: 1, signal: null });
  const last = child.lines.find((line) => /giving up/.test(line)) ?? assert.fail(child.tail());
  assert.match(last, /exit code 0.*listen and go on.*standard input stays open and silent/);
});

function write(place, text, port) {
  writeFileSync(join(place.folder, 'main.cjs'), text);
  writeFileSync(join(place.folder, 'port'), String(port));
  if (!existsSync(join(place.folder, 'node_modules'))) packages(place);
}

/** A port of 127.0.0.1 that this test has. */
async function held(place) {
  const server = net.createServer();
  place.atEnd(() => new Promise((resolve) => server.close(resolve)));
  await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  return server.address().port;
}

// A stop is over within --drain-timeout, whatever waits: each other time that haft knows is an hour here.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { file } from './lib/files.mjs';
import { answer, request, to } from './lib/node-requests.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const SERVER = ['node', file('node-server.mjs'), 'http:127.0.0.1:0'];
const PATIENT = ['--hold-timeout', '1h', '--hang-timeout', '1h'];

/** A client that gets no answer: how its connection ended. */
function inVain(address) {
  return answer(to(address)).then(() => assert.fail('no worker can have answered'), ({ code }) => code);
}

/** Waits until haft holds as many connections for workers that do not take them. */
function held(haft, count) {
  return until(`${count} held`, async () => (await haft.ledger()).inFlight === count);
}

program('what waits for a server that no worker has is refused at once', async (place) => {
  const haft = await place.haft('-w', '2', ...PATIENT, '--drain-timeout', '1h', '--', ...SERVER);
  // Each worker closes its only server.
  for (let closed = 0; closed < 2; closed++) await request({ ...to(haft.address), path: '/haft/close' });
  const ends = [1, 2, 3].map(() => inVain(haft.address));
  await held(haft, ends.length);
  haft.child.process.kill('SIGTERM');
  assert.deepEqual(await Promise.all(ends), ['ECONNRESET', 'ECONNRESET', 'ECONNRESET']);
  assert.deepEqual(await haft.child.exited, { code: 0, signal: null });
  assert.ok(haft.child.lines.some((line) => /stopped: accepted 5, delivered 2, refused 3/.test(line)));
});

program('what waits for a worker that is stopped is refused by the deadline, and the worker killed', async (place) => {
  const haft = await place.haft('-w', '1', ...PATIENT, '--max-in-flight', '1', '--drain-timeout', '2s', '--', ...SERVER);
  const { slots: [{ pid }] } = await haft.status();
  process.kill(pid, 'SIGSTOP');
  const ends = [1, 2, 3].map(() => inVain(haft.address));
  await held(haft, ends.length);
  haft.child.process.kill('SIGTERM');
  assert.deepEqual(await haft.child.exited, { code: 0, signal: null });
  await Promise.all(ends);
});

program('what a worker leaves behind has what is left of the time, not as much again', async (place) => {
  const script = join(place.folder, 'leaver.cjs');
  // The child ignores SIGTERM, and holds nothing of the worker's.
  writeFileSync(script, `require('child_process').spawn('sh', ['-c', 'trap "" TERM; while :; do sleep 1; done'], { stdio: 'ignore' }).unref();
    require('http').createServer((_, to) => to.end()).listen(0, '127.0.0.1');`);
  const haft = await place.haft('-w', '2', ...PATIENT, '--drain-timeout', '2s', '--', 'node', script);
  haft.child.process.kill('SIGTERM');
  assert.deepEqual(await haft.child.exited, { code: 0, signal: null });
});

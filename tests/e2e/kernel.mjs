// The kernel chooses the worker: an unmodified Socket.IO server in four processes, for every version of Node in service, and
// the built-in one. Not one polling request may go astray, and haft must not see a single connection.

import assert from 'node:assert/strict';

import { whoAnswers } from './lib/app.mjs';
import { assertAllServed } from './lib/crowd.mjs';
import { file } from './lib/files.mjs';
import { homes } from './lib/home.mjs';
import { versions } from './lib/node-versions.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const KERNEL = ['-w', '4', '--dispatch', 'kernel'];

/** So many slots from now on, all with a worker, and no other worker. */
async function scale(haft, count) {
  assert.equal((await haft.post(`/scale?workers=${count}`)).status, 202);
  await until(`${count} slots`, async () => {
    const { slots } = await haft.status();
    return slots.length === count && slots.every((slot) => slot.state === 'ready' && slot.draining_workers === 0);
  });
}

program('the built-in worker', async (place) => {
  const haft = await place.haft(...KERNEL);
  await assertAllServed(place, haft, { byKernel: true });
});

for (const { name, path } of versions) {
  program(`${name}: 420 clients from 60 addresses stay on their worker`, async (place) => {
    const haft = await place.haft(...KERNEL, '--', path, file('node-server.mjs'), 'http:0');
    await assertAllServed(place, haft, { each: 7, byKernel: true });
  });
}

for (const { name, path } of versions) {
  program(`${name}: four processes that were two, then five`, async (place) => {
    const haft = await place.haft('-w', '2', '--dispatch', 'kernel', '--', path, file('node-server.mjs'), 'http:0');
    for (const slots of [5, 4]) await scale(haft, slots);
    await assertAllServed(place, haft, { byKernel: true });
  });
}

for (const { name, path } of versions) {
  program(`${name}: clients that wait for a stopped worker are served by another`, async (place) => {
    const haft = await place.haft('-w', '2', '--dispatch', 'kernel', '--hang-timeout', '1s', '--', path, file('node-server.mjs'), 'http:0');
    const { slots: [{ pid }] } = await haft.status();
    const sources = homes(60);
    const served = async () => (await Promise.all(sources.map((home) => whoAnswers(haft.url, home)))).map(({ slot }) => slot);

    process.kill(pid, 'SIGSTOP');
    assert.deepEqual([...new Set(await served())], [1], 'all by the other slot');
    const { rescued, hung } = await haft.status();
    assert.equal(hung, 1);
    process.kill(pid, 'SIGCONT');
    await until('it is taken in again', async () => !(await haft.status()).slots[0].hung);
    const own = (await served()).filter((slot) => slot === 0).length;
    assert.equal(own, rescued, 'as many go back as were rescued');
    place.say(`${rescued} of ${sources.length} connections rescued`);
    await haft.stop();
  });
}

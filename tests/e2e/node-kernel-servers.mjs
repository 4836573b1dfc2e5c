// Where the kernel assigns connections: a server that comes late, and several addresses for one server.

import assert from 'node:assert/strict';

import { file } from './lib/files.mjs';
import { homes } from './lib/home.mjs';
import { answer, to } from './lib/node-requests.mjs';
import { versions } from './lib/node-versions.mjs';
import { freePort } from './lib/ports.mjs';
import { beside } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

const HOMES = homes(12);
const KERNEL = ['-w', '2', '--dispatch', 'kernel'];

/** The slots that answer, each home the same one twice; it must be the server of this name. */
async function slots(address, name, places = HOMES.map((home) => home.address)) {
  const all = await inTurns(places, 4, async (localAddress) => {
    const from = { ...to(address), localAddress };
    const [one, two] = [await answer(from), await answer(from)];
    assert.deepEqual([one.name, two.name], [name, name]);
    assert.equal(one.worker.slot, two.worker.slot, `${localAddress} stays`);
    return one.worker.slot;
  });
  return new Set(all);
}

for (const { name, path } of versions) {
  const server = [path, file('node-server.mjs')];

  beside(`${name}, kernel: a server that comes later than the first gets the port of -l, and both are served`, async (place) => {
    const [web, metrics] = await Promise.all([freePort(), freePort()]);
    const [at, first] = [`127.0.0.1:${web}`, `127.0.0.1:${metrics}`];
    // The program connects to its database for two seconds.
    const haft = await place.haft(...KERNEL, '-l', at, '--', ...server, `http:${first}`, `http:${at}+2000`);
    await haft.child.heard(new RegExp(`asked for the port of ${at} only after.*--listen ${at}=${web}`));
    await until('both workers to have the second server', async () => (await haft.child.heard(/server 1 at/, 2)).length);
    assert.equal((await slots(at, 'server 1')).size, 2);
    assert.equal((await slots(first, 'server 0')).size, 2);
    // A replacement starts with the first server, too.
    const { worker } = await answer(to(at));
    process.kill(worker.pid, 'SIGKILL');
    await haft.child.heard(/server 1 at/, 3);
    assert.equal((await slots(at, 'server 1')).size, 2);
    assert.equal((await slots(first, 'server 0')).size, 2);
    assert.equal((await haft.post('/reload')).status, 202);
    await haft.child.heard(/server 1 at/, 5);
    await until('new workers', async () => (await haft.status()).slots.every(({ state }) => state === 'ready'));
    assert.equal((await slots(at, 'server 1')).size, 2);
    assert.equal((await slots(first, 'server 0')).size, 2);
    assert.deepEqual(haft.child.lines.filter((line) => /server \d failed/.test(line)), []);
    assert.equal(haft.child.lines.filter((line) => /only after workers had begun/.test(line)).length, 1);
    assert.match((await haft.get('/metrics')).body, /^haft_node_troubles_total\{kind="late_server"\} 1$/m);
    await haft.ledger();
    await haft.stop();
  });

  beside(`${name}, kernel: one port at two addresses, and one server at two -l`, async (place) => {
    const [port, other] = await Promise.all([freePort(), freePort()]);
    const haft = await place.haft(...KERNEL, '-l', `${port}`, '--', ...server, `http:127.0.0.1:${port}`, `http:::1:${port}`);
    assert.deepEqual(haft.child.lines.filter((line) => /failed/.test(line)), []);
    for (const address of [`127.0.0.1:${port}`, `[::1]:${port}`]) assert.match((await answer(to(address))).name, /^server [01]$/);
    await haft.stop();

    const several = await place.haft(...KERNEL, '-l', `127.0.0.1:${other}`, '-l', '127.0.0.2:0', '--', ...server, `http:127.0.0.1:${other}`);
    await several.child.heard(/--listen 127\.0\.0\.2:0: with --dispatch kernel.*handed over.*--listen ADDR=PORT/);
    const { listen } = await several.status();
    for (const host of ['127.0.0.1', '127.0.0.2']) {
      assert.equal((await slots(listen.find((address) => address.startsWith(`${host}:`)), 'server 0')).size, 2);
    }
    await several.ledger();
    await several.stop();
  });
}

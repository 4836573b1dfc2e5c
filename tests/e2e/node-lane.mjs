// Connections that come to Node on a socket of their own: which ones do, and that nothing else differs.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';

import { file } from './lib/files.mjs';
import { alive } from './lib/haft.mjs';
import { versions } from './lib/node-versions.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const SERVER = file('node-lane-server.cjs');

/** One request on a connection of its own; `before` is written first. */
async function ask(address, { path = '/', localAddress = '127.0.0.1', before = '' } = {}) {
  const [host, port] = [address.slice(0, address.lastIndexOf(':')), Number(address.split(':').pop())];
  const socket = net.connect({ host, port, localAddress, signal: AbortSignal.timeout(30_000) });
  socket.write(`${before}GET ${path} HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n`);
  let text = '';
  for await (const data of socket) text += data;
  return JSON.parse(text.split('\r\n\r\n')[1]);
}

const many = (count, one) => Promise.all(Array.from({ length: count }, (_, at) => one(at)));

for (const { name, path } of versions) {
  program(`${name}: connections come on the lane, and without the preload over the channel`, async (place) => {
    for (const [flags, lane] of [[[], true], [['--node-serialization', 'advanced'], true], [['--no-preload'], false]]) {
      const haft = await place.haft('-w', '2', ...flags, '--', path, SERVER);
      await many(40, (at) => ask(haft.address, { localAddress: `127.0.1.${at + 1}` }));
      const { all, byChannel } = await ask(haft.address);
      assert.ok(all > 0);
      assert.equal(byChannel, lane ? 0 : all);
      await haft.stop();
    }
  });

  program(`${name}: the lane carries the address that a proxy has stated`, async (place) => {
    const haft = await place.haft('-w', '2', '--proxy-protocol', '--trusted-proxy', '127.0.0.1', '--', path, SERVER);
    const tell = (family, address) => ask(haft.address, { before: `PROXY ${family} ${address} ${address} 4321 80\r\n` });
    for (const [family, address] of [['TCP4', '203.0.113.7'], ['TCP6', '2001:db8::7'], ['TCP6', 'fe80:1:2:3:4:5:6:7']]) {
      const { remoteAddress, remotePort, byChannel } = await tell(family, address);
      assert.deepEqual([remoteAddress, remotePort, byChannel], [address, 4321, 0]);
    }
    await haft.stop();
  });

  program(`${name}: a server that has as many connections as it wants, and one that is closed and opened again`, async (place) => {
    const haft = await place.haft('-w', '1', '--', 'env', 'MOST=2', path, SERVER);
    // More than may be open: each is served once one of those before it has ended.
    const answers = await many(8, () => ask(haft.address, { path: '/slow' }));
    assert.deepEqual(new Set(answers.map(({ byChannel }) => byChannel)), new Set([0]));
    await ask(haft.address, { path: '/again' });
    await many(8, () => ask(haft.address));
    await haft.stop();
  });

  program(`${name}: what was sent to a worker that dies of a connection is served by the next`, async (place) => {
    const haft = await place.haft('-w', '1', '--', 'env', `DIES=${join(place.folder, 'died')}`, path, SERVER);
    const outcomes = await many(30, () => ask(haft.address).catch((error) => error.code || error.name));
    // The first worker dies of its fifth connection. It has confirmed that one; what came behind it was never seen.
    const lost = outcomes.filter((outcome) => typeof outcome === 'string');
    assert.ok(lost.length > 0 && lost.length <= 5, `lost: ${lost}`);
    await haft.stop();
  });

  program(`${name}: what waits on the lane when the master is killed is served`, async (place) => {
    const go = join(place.folder, 'go');
    const haft = await place.haft('-w', '1', '--', 'env', `GO=${go}`, path, SERVER);
    const first = ask(haft.address, { path: '/busy' });
    await haft.child.heard(/^busy$/);
    // More than libuv reads in one turn.
    const others = Promise.all([first, many(50, () => ask(haft.address))]);
    others.catch(() => {});
    await until('all to be on their way', async () => (await haft.status()).slots[0].in_flight === 50);
    await haft.child.end('SIGKILL');
    writeFileSync(go, '');
    const [{ pid }, answers] = await others;
    answers.forEach((answer) => assert.equal(answer.pid, pid));
    await until('the end of the worker', () => !alive(pid));
  });
}

program('below npm the lane is there too', async (place) => {
  writeFileSync(join(place.folder, 'package.json'), JSON.stringify({ scripts: { start: `NODE_ENV=production node ${SERVER}` } }));
  const haft = await place.haft('-w', '2', '--', 'npm', 'start');
  await until('an answer that came on the lane', async () => {
    const { all, byChannel } = await ask(haft.address);
    return all > 0 && byChannel === 0;
  });
  await haft.stop();
});

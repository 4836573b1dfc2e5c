// Every kind of server that a program may ask for: where it listens, which address it learns, what becomes of errors.

import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import tls from 'node:tls';

import selfsigned from 'selfsigned';

import { echoes, who } from './lib/app.mjs';
import { file } from './lib/files.mjs';
import { OwnListeners } from './lib/haft.mjs';
import { homes } from './lib/home.mjs';
import { answer, request, secure, to } from './lib/node-requests.mjs';
import { freePort } from './lib/ports.mjs';
import { versions } from './lib/node-versions.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until, within } from './lib/wait.mjs';

const SERVER = ['node', file('node-server.mjs')];
const HOMES = homes(12);

/** Which worker answers each home at this address: the same one each of three times. */
async function sides(address, name) {
  return inTurns(HOMES, 6, async (home) => {
    const answers = [];
    for (let round = 0; round < 3; round++) answers.push(await answer({ ...to(address), localAddress: home.address }));
    for (const each of answers) assert.deepEqual(each, answers[0], `${home.address} is always served by the same worker`);
    assert.equal(answers[0].name, name, 'the server that asked for this address');
    return answers[0].worker.pid;
  });
}

program('a server over TLS', async (place) => {
  const { private: key, cert } = selfsigned.generate([{ name: 'commonName', value: 'localhost' }], { keySize: 2048 });
  writeFileSync(join(place.folder, 'tls.json'), JSON.stringify({ key, cert }));
  const haft = await place.haft('-w', '3', '--drain-timeout', '1s', '--', 'env', 'TLS=tls.json', ...SERVER, 'https:127.0.0.1:0');
  const pids = await inTurns(HOMES, 6, async (home) => {
    const transports = [['polling', 'websocket'], ['polling']];
    const clients = transports.map((some) => place.client(`https://${haft.address}`, secure(home), { transports: some }));
    for (const client of clients) await echoes(await client.connected());
    await clients[0].upgraded();
    const [one, other] = await Promise.all(clients.map(who));
    assert.deepEqual(one, other, `${home.address} is served by one worker`);
    return one.pid;
  });

  // The workers share the keys of session tickets: a session begun with one is taken up by another.
  const other = HOMES.find((_, index) => pids[index] !== pids[0]);
  assert.ok(other, 'more than one worker has clients');
  const begun = await greet(haft.address, HOMES[0]);
  assert.equal((await greet(haft.address, other, begun.session)).reused, true);
  place.clients.forEach((client) => client.close());
  await haft.stop();
});

/** One TLS handshake: `{ session, reused }`. */
async function greet(address, home, session) {
  const options = { ...to(address), localAddress: home.address, rejectUnauthorized: false, maxVersion: 'TLSv1.2', session };
  const socket = tls.connect(options);
  await within(60_000, 'a TLS handshake', new Promise((resolve, reject) => {
    socket.once('secureConnect', resolve).once('error', reject);
  }));
  const outcome = { session: socket.getSession(), reused: socket.isSessionReused() };
  socket.destroy();
  return outcome;
}

program('two servers, each on a free port of its own', async (place) => {
  const haft = new OwnListeners(place, ['-w', '3', '--', ...SERVER, 'http:127.0.0.1:0', 'http:127.0.0.1:0']);
  const [first, second] = await haft.ready(2);
  assert.notEqual(first, second);
  const pids = await sides(first, 'server 0');
  assert.deepEqual(await sides(second, 'server 1'), pids, 'an address has one worker, whatever the port');
  assert.ok(new Set(pids).size > 1, 'more than one worker has clients');
  await haft.stop();
});

program('the port that the program names, on every interface', async (place) => {
  const port = await freePort();
  const haft = new OwnListeners(place, ['-w', '2', '--', ...SERVER, `http:${port}`]);
  await haft.ready();
  await sides(`127.0.0.1:${port}`, 'server 0');
  const viaIpv6 = answer({ host: '::1', port });
  // A host may be without IPv6; then this must be the reason.
  await viaIpv6.catch((error) => assert.match(error.code, /EADDRNOTAVAIL|EAFNOSUPPORT/));
  await haft.stop();
});

program('-l decides where the first server listens, and the second is left alone', async (place) => {
  const haft = await place.haft('-w', '2', '--', ...SERVER, 'http:127.0.0.1:0', 'http:127.0.0.1:0');
  const [[, first]] = await haft.child.heard(/server 0 at (\S+)$/);
  assert.equal(first, haft.address, 'server.address() tells where clients connect');
  const [[, second]] = await haft.child.heard(/server 1 at (\S+)$/);
  assert.notEqual(second, haft.address);
  await sides(haft.address, 'server 0');
  await sides(second, 'server 1');
  await haft.stop();
});

program('-l beats a port that the program names, and it is said', async (place) => {
  const port = await freePort();
  const haft = await place.haft('-w', '2', '--', ...SERVER, `http:127.0.0.1:${port}`);
  await sides(haft.address, 'server 0');
  await assert.rejects(answer({ host: '127.0.0.1', port }), { code: 'ECONNREFUSED' });
  const said = haft.child.lines.filter((line) => line.includes(`${port}`) && line.includes(haft.address));
  assert.equal(said.length, 1, `one line tells of ${port} and of ${haft.address}:\n${haft.child.tail()}`);
  await haft.stop();
});

for (const { name, path } of versions) {
  program(`${name}: server.address() returns the port that haft has opened`, async (place) => {
    // Whatever the form of -l, a program that wants any port learns haft's, and with the preload every program.
    const asks = async (port, ...flags) => {
      const haft = await place.haft('-w', '1', ...flags, '--', path, file('node-server.mjs'), `http:${port}`);
      const [[, told]] = await haft.child.heard(/server 0 at (?:.*):(\d+)$/);
      const { port: real } = to(haft.address);
      await answer({ host: haft.address.startsWith('[') ? '::1' : '127.0.0.1', port: real });
      await haft.stop();
      return [Number(told), real];
    };
    for (const listen of [':0', '0', '127.0.0.1:0', '[::]:0']) {
      const [told, real] = await asks(0, '-l', listen);
      assert.equal(told, real, `-l ${listen}`);
    }
    const port = await freePort();
    const [told, real] = await asks(port, '-l', ':0', '--affinity', 'session');
    assert.equal(told, real, 'though it asked for another');
    const [also, its] = await asks(port, '-l', ':0');
    assert.equal(also, its, 'every program has the preload');
    // Node fails a server that learns another port than it asked for.
    assert.equal((await asks(port, '-l', ':0', '--no-preload'))[0], port);
  });
}

program('a Unix socket', async (place) => {
  const path = join(place.folder, 'app.sock');
  const haft = new OwnListeners(place, ['-w', '2', '--', ...SERVER, `unix:${path}`]);
  assert.deepEqual(await haft.ready(), [path]);
  for (let round = 0; round < 10; round++) assert.equal((await answer({ socketPath: path })).name, 'server 0');
  await haft.stop();
  assert.ok(!existsSync(path), 'no socket file is left');
});

program('a Unix socket whose file each worker removes before it listens', async (place) => {
  const path = join(place.folder, 'app.sock');
  const script = join(place.folder, 'program.cjs');
  writeFileSync(script, `const { createServer } = require('http');
require('fs').rmSync(${JSON.stringify(path)}, { force: true });
createServer((_, response) => response.end(JSON.stringify({ worker: { pid: process.pid } }))).listen(${JSON.stringify(path)});`);
  const haft = new OwnListeners(place, ['-w', '3', '--', 'node', script]);
  await haft.child.heard(/worker is ready/, 3);
  const { worker } = await answer({ socketPath: path });
  process.kill(worker.pid, 'SIGKILL');
  await haft.child.heard(/worker is ready/, 4);
  for (let round = 0; round < 10; round++) await answer({ socketPath: path });
  assert.equal((await haft.status()).listen.length, 1, 'the listeners before are closed');
  await haft.stop();
  assert.ok(!existsSync(path), 'no socket file is left');
});

program('what cannot be had comes to the program as an error', async (place) => {
  const holder = net.createServer().listen(0, '127.0.0.1');
  place.atEnd(() => holder.close());
  await within(60_000, 'a port to be held', new Promise((resolve) => holder.once('listening', resolve)));
  const held = `http:127.0.0.1:${holder.address().port}`;
  const twice = `http:127.0.0.1:${await freePort()}`;
  const haft = new OwnListeners(place, ['-w', '2', '--', ...SERVER, 'http:127.0.0.1:0', held, 'http:192.0.2.1:0', twice, twice]);
  const [address] = await haft.ready();
  await haft.child.heard(/^server 1 failed EADDRINUSE$/, 2);
  await haft.child.heard(/^server 2 failed EADDRNOTAVAIL$/, 2);
  await haft.child.heard(/^server 3 at /, 2);
  await haft.child.heard(/^server 4 failed EADDRINUSE$/, 2);
  await sides(address, 'server 0');
  await haft.stop();
});

program('a UDP socket works or fails, and the program learns it', async (place) => {
  const haft = new OwnListeners(place, ['-w', '2', '--', ...SERVER, 'http:127.0.0.1:0', 'udp:127.0.0.1:0']);
  const [address] = await haft.ready();
  const told = await haft.child.heard(/^server 1 (at \S+:\d+|failed E\w+)$/, 2);
  await sides(address, 'server 0');
  place.say(`UDP: server 1 ${told[0][1]}`);
  await haft.stop();
});

program('a server that is closed and listens again', async (place) => {
  const haft = await place.haft('-w', '2', '--', ...SERVER, 'http:127.0.0.1:0');
  const from = { ...to(haft.address), localAddress: HOMES[0].address };
  const { worker } = await answer(from);
  const before = haft.child.lines.filter((line) => line.startsWith('server 0 at ')).length;
  assert.equal((await request({ ...from, path: '/haft/reopen' })).status, 200);
  await haft.child.heard(/^server 0 at /, before + 1);
  await until('the same worker to answer again', async () => (await answer(from)).worker.pid === worker.pid);
  await haft.stop();
});

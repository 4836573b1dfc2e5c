// A server's clients go to workers that have it, and to no others: where only some have it, where one lets go of it, and
// where none asks for it any more. And which of several servers gets what comes to -l.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { join } from 'node:path';

import { file } from './lib/files.mjs';
import { OwnListeners } from './lib/haft.mjs';
import { homes } from './lib/home.mjs';
import { answer, request, to } from './lib/node-requests.mjs';
import { freePort } from './lib/ports.mjs';
import { versions } from './lib/node-versions.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until, within } from './lib/wait.mjs';

const SERVER = ['node', file('node-server.mjs')];
const HOMES = homes(24);
/** Nothing that is held for a worker that does not come is passed on within a test. */
const PATIENT = ['--hold-timeout', '1h'];

/** The slot that answers each home, which must be the server of this name. */
async function slots(address, name) {
  return inTurns(HOMES, 6, async (home) => {
    const { worker, name: answered } = await answer({ ...to(address), localAddress: home.address });
    assert.equal(answered, name);
    return worker.slot;
  });
}

/** A connection from this home. */
function connected(address, home) {
  return within(5_000, 'a connection', new Promise((resolve, reject) => {
    const socket = net.connect({ ...to(address), localAddress: home.address }, () => resolve(socket)).on('error', reject);
  }));
}

/** Begins a request that lasts until `end()`: its worker closes its server and then waits for it. */
function retire(address, home) {
  return within(60_000, 'a worker that retires', new Promise((resolve, reject) => {
    const request = http.get({ ...to(address), path: '/haft/retire', localAddress: home.address, agent: false });
    request.on('error', reject).on('response', (response) => {
      response.on('error', () => {});
      response.once('data', () => resolve({ end: () => response.destroy() }));
    });
  }));
}

for (const dispatch of ['handover', 'kernel']) program(`${dispatch}: a server that only one worker has, and one port for each worker`, async (place) => {
  const [admin, ...each] = await Promise.all([0, 0, 0, 0].map(freePort));
  const places = each.map((port, slot) => `http:127.0.0.1:${port}@${slot}`);
  const main = `http:127.0.0.1:${await freePort()}`;
  const haft = new OwnListeners(place, ['-w', '3', '--dispatch', dispatch, ...PATIENT, '--', ...SERVER, main, `http:127.0.0.1:${admin}@1`, ...places]);
  await haft.ready();
  await haft.child.heard(/^server [2345] at /, 3);
  assert.deepEqual(new Set(await slots(`127.0.0.1:${admin}`, 'server 1')), new Set([1]));
  for (const [slot, port] of each.entries()) {
    assert.deepEqual(new Set(await slots(`127.0.0.1:${port}`, `server ${slot + 2}`)), new Set([slot]));
  }
  assert.equal(new Set(await slots(main.slice(5), 'server 0')).size, 3, 'what all have is spread over all');
  await haft.stop();
});

for (const style of [[], ['--affinity', 'session'], ['--affinity', 'none'], ['--dispatch', 'kernel']]) {
  program(`a worker that retires by itself costs other clients nothing ${style.join(' ')}`, async (place) => {
    const haft = await place.haft('-w', '3', ...PATIENT, ...style, '--', ...SERVER, 'http:127.0.0.1:0');
    const before = await slots(haft.address, 'server 0');
    const retiring = await retire(haft.address, HOMES[0]);
    const during = await slots(haft.address, 'server 0');
    const [gone] = style.includes('none') ? [] : [before[0]];
    if (gone !== undefined) {
      assert.ok(!during.includes(gone), 'its clients are served by others');
      for (const [index, slot] of before.entries()) if (slot !== gone) assert.equal(during[index], slot, 'the others stay');
    }
    retiring.end();
    await until('its replacement', async () => (await haft.status()).slots.every(({ state }) => state === 'ready'));
    if (gone !== undefined) {
      await until('all to be where they were', async () => {
        const after = await slots(haft.address, 'server 0');
        return after.every((slot, index) => slot === before[index]);
      });
    }
    await haft.stop();
  });
}

program('kernel: what waits in the queue of a worker that closes its server is answered by another at once', async (place) => {
  const haft = await place.haft('-w', '2', '--dispatch', 'kernel', ...PATIENT, '--hang-timeout', '1h', '--', ...SERVER, 'http:127.0.0.1:0');
  const before = await slots(haft.address, 'server 0');
  const gone = before[0];
  const { slots: each } = await haft.status();
  const { pid } = each.find(({ slot }) => slot === gone);
  // Its program is asked to close while it cannot run; what comes meanwhile is steered to it, and waits there.
  const closing = await connected(haft.address, HOMES[0]);
  process.kill(pid, 'SIGSTOP');
  closing.write('GET /haft/close HTTP/1.1\r\nHost: a\r\n\r\n');
  const waiting = slots(haft.address, 'server 0');
  await until('them to wait', async () => (await haft.status()).slots.some(({ accept_queue: queue }) => queue > 0));
  process.kill(pid, 'SIGCONT');
  await waiting;
  await until('all by the other', async () => !(await slots(haft.address, 'server 0')).includes(gone));
  closing.destroy();
  await haft.stop();
});

program('workers that have no port in common are logged, once', async (place) => {
  const ports = await Promise.all([0, 0, 0].map(freePort));
  const places = ports.map((port, slot) => `http:127.0.0.1:${port}@${slot}`);
  const haft = new OwnListeners(place, ['-w', '3', '--hold-timeout', '1s', '--', ...SERVER, ...places]);
  await haft.child.heard(/the workers listen on different ports/);
  for (const [slot, port] of ports.entries()) {
    assert.deepEqual(new Set(await slots(`127.0.0.1:${port}`, `server ${slot}`)), new Set([slot]));
  }
  assert.equal(haft.child.lines.filter((line) => line.includes('different ports')).length, 1);
  await haft.stop();
});

program('a worker without a server is not ready, and its clients are refused in time', async (place) => {
  const haft = await place.haft('-w', '1', '--hold-timeout', '1s', '--', ...SERVER, 'http:127.0.0.1:0');
  await request({ ...to(haft.address), path: '/haft/close' });
  await until('a 503 from /readyz', async () => {
    const { status, body } = await haft.get('/readyz');
    return status === 503 && /has closed all of its servers/.test(body);
  });
  await assert.rejects(answer(to(haft.address)), { code: 'ECONNRESET' });
  assert.equal((await haft.ledger()).refused, 1);
  await haft.stop();
});

program('a port that a new version does not ask for is closed, and a stop is over in time', async (place) => {
  const [main, old] = await Promise.all([freePort(), freePort()]);
  const script = join(place.folder, 'start.sh');
  const write = (...ports) => writeFileSync(script, `exec node ${file('node-server.mjs')} ${ports.map((port) => `http:127.0.0.1:${port}`).join(' ')}\n`);
  write(main, old);
  const haft = new OwnListeners(place, ['-w', '2', '--hold-timeout', '2s', '--dialect', 'node', '--', 'sh', script]);
  await haft.ready(2);
  await slots(`127.0.0.1:${old}`, 'server 1');
  write(main);
  assert.equal((await haft.post('/reload')).status, 202);
  await until('the reload to be done', async () => (await haft.samples()).some(({ name, value }) => name === 'haft_reloads_total' && value === 1));
  // Clients that come meanwhile are refused, and counted; then nothing listens there any more.
  await until('the port to be closed', async () => {
    const failed = await answer({ host: '127.0.0.1', port: old }).then(() => assert.fail('no worker has it'), (error) => error.code);
    assert.match(failed, /ECONNREFUSED|ECONNRESET/);
    return failed === 'ECONNREFUSED';
  });
  await slots(`127.0.0.1:${main}`, 'server 0');
  await haft.ledger();
  await haft.stop();
});

for (const { name, path } of versions) {
  program(`${name}: -l serves the server that asks for its port, though another came first`, async (place) => {
    const [web, metrics] = await Promise.all([freePort(), freePort()]);
    const server = [path, file('node-server.mjs')];
    const haft = await place.haft('-w', '2', '-l', `127.0.0.1:${web}`, '--', ...server, `http:127.0.0.1:${metrics}`, `http:127.0.0.1:${web}`);
    await slots(`127.0.0.1:${web}`, 'server 1');
    await slots(`127.0.0.1:${metrics}`, 'server 0');
    await haft.child.heard(new RegExp(`server on port ${web} gets the connections of 127.0.0.1:${web}`));
    // The second worker's order is the same, and a replacement's.
    const { worker } = await answer(to(`127.0.0.1:${web}`));
    process.kill(worker.pid, 'SIGKILL');
    await slots(`127.0.0.1:${web}`, 'server 1');
    await slots(`127.0.0.1:${metrics}`, 'server 0');
    await haft.stop();
  });
}

program('every worker is instance N of N, and what it reads from never ends', async (place) => {
  const script = join(place.folder, 'instance.cjs');
  writeFileSync(script, `process.stdin.on('end', () => process.exit(3)).resume();
    require('http').createServer((_, to) => to.end(JSON.stringify({ worker: { slot: Number(process.env.NODE_APP_INSTANCE) }, name: process.env.HAFT_SLOT }))).listen(0, '127.0.0.1');`);
  process.env.NODE_APP_INSTANCE = '0'; // as pm2 leaves it to what it starts
  place.atEnd(() => delete process.env.NODE_APP_INSTANCE);
  const haft = await place.haft('-w', '3', '--', 'node', script);
  const seen = new Set();
  for (const home of HOMES) {
    const { worker, name } = await answer({ ...to(haft.address), localAddress: home.address });
    assert.equal(String(worker.slot), name);
    seen.add(worker.slot);
  }
  assert.equal(seen.size, 3);
  assert.ok((await haft.status()).slots.every(({ respawned }) => respawned === 0), 'no worker has ended');
  await haft.stop();
});

program('messages to the primary: logged once for each library, and passed on only where that is wanted', async (place) => {
  const script = join(place.folder, 'chat.cjs');
  writeFileSync(script, `const heard = [];
    process.on('message', (message) => heard.push(message));
    require('http').createServer((from, to) => {
      const { searchParams } = new URL(from.url, 'http://a');
      const send = searchParams.get('send');
      if (send) process.send(JSON.parse(send));
      to.end(JSON.stringify({ worker: { slot: Number(process.env.HAFT_SLOT) }, heard }));
    }).listen(0, '127.0.0.1');`);
  const each = async (haft, path) => {
    const seen = new Map();
    for (const home of HOMES) {
      const told = await answer({ ...to(haft.address), localAddress: home.address }, path);
      seen.set(told.worker.slot, told.heard);
    }
    return seen;
  };
  const log4js = encodeURIComponent('{"topic":"log4js:message","data":"{}"}');
  const haft = await place.haft('-w', '3', '--', 'node', script);
  for (const send of ['"a"', '{"b":[1]}', log4js, log4js]) await each(haft, `/?send=${send}`);
  await haft.child.heard(/say --relay-messages/);
  await haft.child.heard(/disableClustering: true/);
  assert.equal(haft.child.lines.filter((line) => /relay-messages|disableClustering/.test(line)).length, 2);
  for (const heard of (await each(haft, '/')).values()) assert.deepEqual(heard, []);
  await haft.stop();

  const relaying = await place.haft('-w', '3', '--relay-messages', '--', 'node', script);
  const from = { ...to(relaying.address), localAddress: HOMES[0].address };
  const { worker } = await answer(from, `/?send=${encodeURIComponent('{"b":[1]}')}`);
  await until('the others to have heard it', async () => {
    const seen = await each(relaying, '/');
    assert.equal(seen.size, 3);
    for (const [slot, heard] of seen) assert.deepEqual(heard, slot === worker.slot ? [] : [{ b: [1] }]);
    return true;
  });
  await relaying.stop();
});

/** A server of this name at an address that the status lists, by its host. */
async function named(haft, host, name) {
  const { listen } = await haft.status();
  return new Set(await slots(listen.find((address) => address.startsWith(`${host}:`)), name));
}

for (const { name, path } of versions) {
  const server = [path, file('node-server.mjs')];
  const KERNEL = ['-w', '2', '--dispatch', 'kernel'];

  program(`${name}, kernel: a program on another port than -l is served from there, and learns haft's address`, async (place) => {
    const port = await freePort();
    const haft = await place.haft(...KERNEL, '--', ...server, `http:127.0.0.1:${port}`);
    assert.equal(new Set(await slots(haft.address, 'server 0')).size, 2);
    const [[, one], [, other]] = await haft.child.heard(/server 0 at (\S+)$/, 2);
    assert.deepEqual([one, other], [haft.address, haft.address]);
    await assert.rejects(answer({ host: '127.0.0.1', port }), { code: 'ECONNREFUSED' });
    const { worker } = await answer(to(haft.address));
    process.kill(worker.pid, 'SIGKILL');
    await until('its replacement', async () => new Set(await slots(haft.address, 'server 0')).size === 2);
    await haft.stop();
  });

  program(`${name}, kernel: -l serves the server that asks for its port, though another came first`, async (place) => {
    const [web, metrics] = await Promise.all([freePort(), freePort()]);
    // Both ask without waiting for each other.
    const script = join(place.folder, 'both.cjs');
    writeFileSync(script, `process.argv.slice(2).forEach((port, index) => require('http').createServer((_, to) =>
      to.end(JSON.stringify({ worker: { slot: Number(process.env.HAFT_SLOT), pid: process.pid }, name: 'server ' + index }))).listen(Number(port), '127.0.0.1'));`);
    const haft = await place.haft(...KERNEL, '-l', `127.0.0.1:${web}`, '--', path, script, metrics, web);
    await slots(`127.0.0.1:${web}`, 'server 1');
    await slots(`127.0.0.1:${metrics}`, 'server 0');
    const { worker } = await answer(to(`127.0.0.1:${web}`));
    process.kill(worker.pid, 'SIGKILL');
    await slots(`127.0.0.1:${web}`, 'server 1');
    await slots(`127.0.0.1:${metrics}`, 'server 0');
    await haft.stop();
  });

  program(`${name}, kernel: -l ADDR=PORT names each server`, async (place) => {
    const [web, metrics] = await Promise.all([freePort(), freePort()]);
    const listeners = ['-l', `127.0.0.1:0=${web}`, '-l', `127.0.0.2:0=${metrics}`];
    const haft = await place.haft(...KERNEL, ...listeners, '--', ...server, `http:127.0.0.1:${metrics}`, `http:127.0.0.1:${web}`);
    await named(haft, '127.0.0.1', 'server 1');
    await named(haft, '127.0.0.2', 'server 0');
    for (const port of [web, metrics]) await assert.rejects(answer({ host: '127.0.0.1', port }), { code: 'ECONNREFUSED' });
    await haft.stop();
  });
}

program('the server that comes late gets its port back from the first', async (place) => {
  const [web, metrics] = await Promise.all([freePort(), freePort()]);
  const haft = await place.haft('-w', '2', '-l', `127.0.0.1:${web}`, '--', ...SERVER, `http:127.0.0.1:${metrics}`, `http:127.0.0.1:${web}+1500`);
  await until('the server that is meant', async () => (await answer(to(`127.0.0.1:${web}`))).name === 'server 1');
  await until('both workers', async () => (await slots(`127.0.0.1:${web}`, 'server 1')).length);
  await slots(`127.0.0.1:${metrics}`, 'server 0');
  await haft.stop();
});

program('-l ADDR=PORT names the server', async (place) => {
  const [web, metrics] = await Promise.all([freePort(), freePort()]);
  const listeners = ['-l', `127.0.0.1:0=${web}`, '-l', `127.0.0.2:0=${metrics}`];
  const haft = await place.haft('-w', '2', ...listeners, '--', ...SERVER, `http:127.0.0.1:${metrics}`, `http:127.0.0.1:${web}`);
  const { listen } = await haft.status();
  await slots(listen.find((address) => address.startsWith('127.0.0.1:')), 'server 1');
  await slots(listen.find((address) => address.startsWith('127.0.0.2:')), 'server 0');
  for (const port of [web, metrics]) await assert.rejects(answer({ host: '127.0.0.1', port }), { code: 'ECONNREFUSED' });
  await haft.stop();
});

program('a program that listens at one port of two addresses', async (place) => {
  const port = await freePort();
  const places = [`http:127.0.0.1:${port}`, `http:::1:${port}`];
  const haft = await place.haft('-w', '2', '-l', `127.0.0.1:${port}`, '--', ...SERVER, ...places);
  assert.deepEqual(haft.child.lines.filter((line) => /failed/.test(line)), []);
  await slots(haft.address, 'server 0');
  await haft.stop();
});

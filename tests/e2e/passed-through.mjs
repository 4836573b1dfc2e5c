// What haft must not touch: a frame that comes with the request for a WebSocket, HTTP/2, TLS and plain HTTP on one
// port, a connection that is kept over a reload, PROXY headers behind the first, and clients that connect and send
// nothing.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import { join } from 'node:path';

import selfsigned from 'selfsigned';

import { file } from './lib/files.mjs';
import { to } from './lib/node-requests.mjs';
import { program } from './lib/program.mjs';
import { Raw } from './lib/raw.mjs';
import { until, within } from './lib/wait.mjs';
import { WEBSOCKET, frame, handshake, head } from './lib/wire.mjs';

const NODE = (place, ...words) => ['--', 'node', file('node-parting-server.cjs'), join(place.folder, 'note'), ...words];

const MODES = {
  'hand-over': (place) => NODE(place),
  'sessions': (place) => ['--affinity', 'session', ...NODE(place)],
  'a message style': (place) => ['--node-style', 'classic', '--wait-ready', ...NODE(place, 'message=sticky-session:connection')],
  'kernel dispatch': (place) => ['--dispatch', 'kernel', ...NODE(place, 'any')],
  'the built-in worker': () => [],
};

for (const [mode, flags] of Object.entries(MODES)) {
  program(`a frame right behind the request for a WebSocket: ${mode}`, async (place) => {
    const haft = await place.haft('-w', '2', ...flags(place));
    const builtIn = mode === 'the built-in worker';
    const [path, says, hears] = builtIn ? [WEBSOCKET, '40/echo,', '40/echo,{"sid"'] : ['/plain', 'early', '\x81\x05early'];
    for (let round = 0; round < 5; round++) {
      const raw = await Raw.connect(place, haft.address);
      raw.write(Buffer.concat([Buffer.from(handshake(path)), frame(0x81, says)]));
      await until('what answers the frame', () => raw.received.includes(hears, 0, 'latin1'), { within: 60_000 });
      assert.match(raw.received.toString('latin1'), /^HTTP\/1\.1 101/);
      raw.close();
    }
    await haft.stop();
  });
}

const { private: key, cert } = selfsigned.generate([{ name: 'commonName', value: 'localhost' }], { keySize: 2048 });

function certificate(place) {
  const path = join(place.folder, 'tls.json');
  writeFileSync(path, JSON.stringify({ key, cert }));
  return path;
}

function ask(module, address, path = '/', options = {}) {
  return within(60_000, 'an answer', new Promise((resolve, reject) => {
    const request = module.get({ ...to(address), path, rejectUnauthorized: false, ...options }, (response) => {
      let body = '';
      response.on('data', (part) => (body += part)).on('end', () => resolve(JSON.parse(body))).on('error', reject);
    });
    request.on('error', reject);
  }));
}

function ask2(place, address) {
  const session = http2.connect(`https://${address}`, { rejectUnauthorized: false });
  place.atEnd(() => session.destroy());
  return within(60_000, 'an answer over HTTP/2', new Promise((resolve, reject) => {
    session.on('error', reject);
    let body = '';
    const stream = session.request({ ':path': '/' });
    stream.on('data', (part) => (body += part)).on('end', () => resolve(JSON.parse(body))).on('error', reject);
  }));
}

const told = ({ version, tls }) => [version, tls];

for (const affinity of ['ip', 'session']) {
  program(`HTTP/2, HTTP/1.1 over TLS and plain HTTP on one port, with --affinity ${affinity}`, async (place) => {
    const haft = await place.haft('-w', '2', '--affinity', affinity, '--', 'node', file('passing-server.cjs'), certificate(place));
    for (let round = 0; round < 3; round++) {
      assert.deepEqual(told(await ask2(place, haft.address)), ['2.0', true]);
      assert.deepEqual(told(await ask(https, haft.address)), ['1.1', true]);
      assert.deepEqual(told(await ask(http, haft.address)), ['1.1', false]);
    }
    assert.equal((await haft.ledger()).refused, 0);
    await haft.stop();
  });
}

program('a server of HTTP/2 that takes HTTP/1.1 too', async (place) => {
  const haft = await place.haft('-w', '2', '--', 'node', file('passing-server.cjs'), certificate(place), 'secure');
  assert.deepEqual(told(await ask2(place, haft.address)), ['2.0', true]);
  assert.deepEqual(told(await ask(https, haft.address)), ['1.1', true]);
  await haft.stop();
});

program('a connection that is kept is served on over a reload, and then others by the new worker', async (place) => {
  const haft = await place.haft('-w', '1', '--', 'node', file('passing-server.cjs'), certificate(place));
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  place.atEnd(() => agent.destroy());
  const { pid } = await ask(http, haft.address, '/', { agent });
  const slow = ask(http, haft.address, '/slow', { agent });
  await haft.post('/reload');
  assert.equal((await slow).pid, pid, 'what was under way is answered');
  await until('the new worker', async () => (await haft.status()).reload.state === 'done', { within: 60_000 });
  await until('an answer by the new worker', async () => (await ask(http, haft.address)).pid !== pid, { within: 60_000 });
  const { refused, respawned } = await haft.ledger();
  assert.deepEqual([refused, respawned], [0, 0]);
  await haft.stop();
});

program('of several PROXY headers one is taken, and the worker sees the rest', async (place) => {
  const haft = await place.haft('-w', '1', '--proxy-protocol', '--trusted-proxy', '127.0.0.0/8');
  const header = (client) => `PROXY TCP4 ${client} 127.0.0.1 4711 3000\r\n`;
  const get = head('GET /haft/page.json HTTP/1.1');
  for (const [headers, status] of [[header('192.0.2.1'), 200], [header('192.0.2.1') + header('192.0.2.2'), 400]]) {
    const raw = await Raw.connect(place, haft.address);
    raw.write(headers + get);
    assert.equal((await raw.answer()).status, status);
  }
  await haft.stop();
});

for (const flags of [[], ['--affinity', 'session'], ['--dispatch', 'kernel']]) {
  program(`a client that connects and closes harms nothing: ${flags.join(' ') || 'hand-over'}`, async (place) => {
    const haft = await place.haft('-w', '2', ...flags);
    const before = (await haft.ledger()).refused;
    for (const end of ['end', 'destroy', 'resetAndDestroy']) {
      const checks = Array.from({ length: 50 }, () => new Promise((resolve) => {
        const socket = net.connect({ ...to(haft.address) }, () => socket[end]());
        socket.on('error', () => {}).on('close', resolve);
      }));
      await within(60_000, 'all checks', Promise.all(checks));
    }
    await until('the workers to have none open', async () => {
      const { slots } = await haft.status();
      return slots.every(({ in_flight: inFlight, held }) => !inFlight && !held);
    }, { within: 60_000 });
    assert.equal((await (await fetch(`${haft.url}/haft/page.json`)).json()) !== undefined, true);
    const { refused, respawned } = await haft.ledger();
    assert.deepEqual([refused - before, respawned], [0, 0]);
    assert.deepEqual(haft.child.lines.filter((line) => / WARN | ERROR /.test(line) && !/root/.test(line)), []);
    await haft.stop();
  });
}

// How evenly a reload ends WebSockets: `node tests/bench/parting.mjs [ip|session] [sessions|plain]`, after a build.
//
// 2,000 idle WebSockets on 4 Node workers, then one reload. The workers note each end. What is measured is the sum over
// all workers, second by second from the first end to the last. The mean is all ends by that time; the highest second is
// to be at most 1.5 times as many. COUNT and DRAIN (seconds) change the size; it ends by itself after DRAIN and a minute.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { WebSocket } = createRequire(here('../e2e/package.json'))('ws');

const [, , affinity = 'ip', kind = 'sessions'] = process.argv;
const count = Number(process.env.COUNT ?? 2000);
const drain = Number(process.env.DRAIN ?? 25);
const haftPath = process.env.HAFT ?? here('../../target/release/haft');
const folder = mkdtempSync(join(tmpdir(), 'haft-parting-'));
const [admin, note] = [join(folder, 'admin.sock'), join(folder, 'note')];
const flags = ['-l', '127.0.0.1:0', '-w', '4', '--admin', `unix:${admin}`, '--drain-timeout', `${drain}s`];
const command = ['--affinity', affinity, '--', process.execPath, here('../e2e/lib/node-parting-server.cjs'), note];
const haft = spawn(haftPath, [...flags, ...command], { stdio: ['ignore', 'ignore', 'pipe'] });
const sockets = [];

function ask(method, path) {
  return new Promise((done) => {
    const request = http.request({ socketPath: admin, method, path, agent: false }, (response) => {
      let body = '';
      response.on('data', (part) => (body += part)).on('end', () => done({ status: response.statusCode, body }));
    });
    request.on('error', () => done({ status: 0 })).end();
  });
}

/** Waits until `is` holds, for a minute beyond the drain time at most. */
async function until(what, is) {
  const end = Date.now() + (drain + 60) * 1000;
  while (!(await is())) {
    if (Date.now() > end) throw new Error(`waited too long for ${what}`);
    await sleep(50);
  }
}

/** An idle WebSocket from an address of its own, so that they are spread over the workers. */
function open(index, port) {
  const path = kind === 'plain' ? '/plain' : '/socket.io/?EIO=4&transport=websocket';
  const localAddress = `127.${1 + (index >> 14)}.${(index >> 7) & 127}.${1 + (index & 127)}`;
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { localAddress });
  sockets.push(socket);
  socket.on('message', (data) => {
    if (`${data}` === '2') socket.send('3');
    else if (`${data}`.startsWith('0{')) socket.send('40');
  });
  return new Promise((done, failed) => socket.once('open', done).once('error', failed));
}

try {
  let log = '';
  haft.stderr.on('data', (part) => (log += part));
  await until('haft', async () => (await ask('GET', '/readyz')).status === 200);
  const [, port] = /listening on \S*:(\d+)/.exec(log);
  for (let index = 0; index < count; index += 50) {
    await Promise.all(Array.from({ length: Math.min(50, count - index) }, (_, at) => open(index + at, port)));
  }
  await sleep(2000);
  await ask('POST', '/reload');
  const ends = () => readFileSync(note, 'utf8').split('\n').filter((line) => line.includes('"ended"'));
  await until('all to be ended', () => sockets.every(({ readyState }) => readyState === WebSocket.CLOSED));
  const told = ends().map((line) => JSON.parse(line).at).sort((one, other) => one - other);
  const seconds = [];
  for (const at of told) {
    const second = Math.floor((at - told[0]) / 1000);
    seconds[second] = (seconds[second] ?? 0) + 1;
  }
  const span = (told.at(-1) - told[0]) / 1000;
  const [mean, most] = [told.length / span, Math.max(...seconds.filter(Boolean))];
  console.log(`${affinity}, ${kind}: ${told.length} ended over ${span.toFixed(1)} s, ${Array.from(seconds, (n) => n ?? 0)}`);
  console.log(`mean ${mean.toFixed(0)} a second, most ${most}: ${(most / mean).toFixed(2)} times the mean`);
} finally {
  sockets.forEach((socket) => socket.terminate());
  haft.kill('SIGTERM');
  haft.kill('SIGTERM');
  const gone = new Promise((done) => haft.once('exit', done));
  if (haft.exitCode === null) await Promise.race([gone, sleep(drain * 1000 + 5000).then(() => haft.kill('SIGKILL'))]);
  rmSync(folder, { recursive: true, force: true });
}

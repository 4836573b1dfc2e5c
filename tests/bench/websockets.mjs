// What an idle Socket.IO session over WebSocket takes of its worker's memory: `node tests/bench/websockets.mjs`, after a build.
//
// 2,000 sessions on 2 workers, of an unmodified Node program and of the built-in worker; the workers' resident memory before
// and after (/proc/PID/status, VmRSS). COUNT changes the size.

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

const count = Number(process.env.COUNT ?? 2000);
const haftPath = process.env.HAFT ?? here('../../target/release/haft');
const folder = mkdtempSync(join(tmpdir(), 'haft-websockets-'));
const admin = join(folder, 'admin.sock');

for (const [name, command] of [
  ['Node', ['--', process.execPath, here('../e2e/lib/session-server.cjs')]],
  ['the built-in worker', []],
]) {
  const flags = ['-l', '127.0.0.1:0', '-w', '2', '--affinity', 'session', '--admin', `unix:${admin}`, '--drain-timeout', '1s'];
  const haft = spawn(haftPath, [...flags, ...command], { stdio: ['ignore', 'ignore', 'pipe'] });
  const gone = new Promise((done) => haft.once('exit', done));
  let log = '';
  haft.stderr.on('data', (part) => (log += part));
  const sockets = [];
  try {
    const deadline = Date.now() + 60_000;
    while (!(await ready()) || !/listening on/.test(log)) {
      if (Date.now() > deadline) throw new Error(`haft is not ready:\n${log}`);
      await sleep(50);
    }
    const [, port] = /listening on \S*:(\d+)/.exec(log);
    const before = await memory();
    for (let index = 0; index < count; index += 50) {
      await Promise.all(Array.from({ length: Math.min(50, count - index) }, () => open(port, sockets)));
    }
    await sleep(3000);
    const each = ((await memory()) - before) / count;
    console.log(`${name}: ${each.toFixed(1)} KiB for each of ${count} sessions`);
  } finally {
    sockets.forEach((socket) => socket.terminate());
    haft.kill('SIGTERM');
    await Promise.race([gone, sleep(20_000).then(() => haft.kill('SIGKILL'))]);
  }
}
rmSync(folder, { recursive: true, force: true });

/** A session that is connected to the main namespace, and answers pings. */
function open(port, sockets) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/socket.io/?EIO=4&transport=websocket`);
  sockets.push(socket);
  return new Promise((done, failed) => {
    socket.once('error', failed);
    socket.on('message', (data) => {
      if (`${data}` === '2') socket.send('3');
      else if (`${data}`.startsWith('0{')) socket.send('40');
      else if (`${data}`.startsWith('40')) done();
    });
  });
}

function get(path) {
  return new Promise((done) => {
    const request = http.request({ socketPath: admin, path, agent: false }, (response) => {
      let body = '';
      response.on('data', (part) => (body += part)).on('end', () => done({ status: response.statusCode, body }));
    });
    request.on('error', () => done({ status: 0 })).end();
  });
}

async function slots() {
  const { status, body } = await get('/status');
  return status === 200 ? JSON.parse(body).slots : [];
}

async function ready() {
  const all = await slots();
  return all.length > 0 && all.every(({ state }) => state === 'ready');
}

/** Of all workers, in KiB. */
async function memory() {
  const of = ({ pid }) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
  return (await slots()).reduce((sum, slot) => sum + of(slot), 0);
}

// What a broadcast costs: `node tests/bench/rooms.mjs`, after a release build and npm ci in tests/e2e.
//
// 1,000 members (WebSockets of Socket.IO) on 4 Node workers, and a worker that sends to all of them, RATE times a second for
// SECONDS. The same unmodified program in turns under haft; with @socket.io/cluster-adapter under Node's own primary; with
// @socket.io/redis-adapter under haft and a redis-server of its own; and under haft with each worker sending to its own
// members, which relays nothing. What is measured is CPU time, of what stands between the workers and of the workers.
// Then how long haft takes from accepting to the worker's acknowledgement while workers exchange EXCHANGE messages a
// second, and while they do not. MEMBERS, ROUNDS and the words above can be set in the environment; it ends by itself.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { WebSocket } = createRequire(here('../e2e/package.json'))('ws');
const number = (name, value) => Number(process.env[name] ?? value);
const [members, rate, seconds, rounds] = [number('MEMBERS', 1000), number('RATE', 40), number('SECONDS', 8), number('ROUNDS', 3)];
const exchange = number('EXCHANGE', 20_000);
const WORKERS = 4;
const haftPath = process.env.HAFT ?? here('../../target/release/haft');
const server = here('../e2e/lib/node-rooms-bench.cjs');
const folder = mkdtempSync(join(tmpdir(), 'haft-rooms-'));
const children = new Set();
process.on('exit', () => {
  children.forEach((child) => child.kill('SIGKILL'));
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.once(signal, () => process.exit(1));

function start(command, args, env = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  children.add(child);
  child.log = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (part) => (child.log += part));
  child.once('exit', () => children.delete(child));
  return child;
}

async function heard(child, pattern) {
  for (let waited = 0; waited < 60_000; waited += 50) {
    const found = pattern.exec(child.log);
    if (found) return found;
    if (child.exitCode !== null) break;
    await sleep(50);
  }
  throw new Error(`nothing like ${pattern} in: ${child.log}`);
}

async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((done) => child.once('exit', done));
  child.kill('SIGTERM');
  const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await ended;
  clearTimeout(late);
}

async function freePort() {
  const probe = net.createServer().listen(0, '127.0.0.1');
  await new Promise((done) => probe.once('listening', done));
  const { port } = probe.address();
  await new Promise((done) => probe.close(done));
  return port;
}

/** CPU time of a process, all of its threads, in microseconds. */
function cpu(pid) {
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.reduce((sum, thread) => {
    const [ran] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ');
    return sum + Number(ran) / 1000;
  }, 0);
}

function get(admin, path) {
  return new Promise((done) => {
    const request = http.request({ socketPath: admin, path, agent: false }, (response) => {
      let body = '';
      response.on('data', (part) => (body += part)).on('end', () => done({ status: response.statusCode, body }));
    });
    request.on('error', () => done({ status: 0 })).end();
  });
}

/** haft with the program: where it listens, its process, its workers. */
async function haft(adapter, ...flags) {
  const admin = join(folder, `admin-${Math.random()}.sock`);
  const args = ['-l', '127.0.0.1:0', '-w', `${WORKERS}`, '--admin', `unix:${admin}`, '--drain-timeout', '1s', ...flags];
  const child = start(haftPath, [...args, '--', process.execPath, server, ...adapter]);
  const [, port] = await heard(child, /listening on \S*:(\d+)/);
  while ((await get(admin, '/readyz')).status !== 200) await sleep(50);
  const { slots } = JSON.parse((await get(admin, '/status')).body);
  return { port, admin, between: [child.pid], workers: slots.map(({ pid }) => pid), stop: () => end(child) };
}

async function nodePrimary() {
  const relay = createRequire(here('../e2e/package.json')).resolve('@socket.io/cluster-adapter');
  const child = start(process.execPath, [here('../e2e/lib/node-primary.mjs'), `${WORKERS}`, server, '@socket.io/cluster-adapter'], { RELAY: relay });
  const [, port] = await heard(child, /listening on \S*:(\d+)/);
  const pids = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ').map(Number);
  return { port, between: [child.pid], workers: pids, stop: () => end(child) };
}

async function redis() {
  const port = await freePort();
  const child = start('redis-server', ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder]);
  await heard(child, /Ready to accept connections/);
  const served = await haft(['@socket.io/redis-adapter', `${port}`], '--rooms', 'off');
  return { ...served, between: [child.pid], master: served.between, stop: async () => (await served.stop(), await end(child)) };
}

/** A member: it counts what it hears, and can say something to its worker. */
function member(index, port) {
  const localAddress = `127.${1 + (index >> 14)}.${(index >> 7) & 127}.${1 + (index & 127)}`;
  const socket = new WebSocket(`ws://127.0.0.1:${port}/socket.io/?EIO=4&transport=websocket`, { localAddress, perMessageDeflate: false });
  const it = { socket, heard: 0, say: (...data) => socket.send(`42${JSON.stringify(data)}`) };
  return new Promise((done, failed) => {
    socket.once('error', failed);
    socket.on('message', (data) => {
      const [kind, sort] = [data[0], data[1]];
      if (kind === 0x30) socket.send('40');
      else if (kind === 0x32) socket.send('3');
      else if (kind === 0x34 && sort === 0x32) {
        if (data.length < 60) {
          const [event, value] = JSON.parse(data.toString().slice(2));
          if (event === 'pid') {
            it.pid = value;
            done(it);
            return;
          }
        }
        it.heard++;
      }
    });
  });
}

async function gather(port, count) {
  const all = [];
  for (let at = 0; at < count; at += 50) {
    all.push(...await Promise.all(Array.from({ length: Math.min(50, count - at) }, (_, i) => member(at + i, port))));
  }
  return all;
}

/** Microseconds of CPU for each broadcast. */
async function broadcasts(contender, event = 'all') {
  const served = await contender();
  try {
    const all = await gather(served.port, members);
    const senders = event === 'all' ? all.slice(0, 1) : [...new Map(all.map((it) => [it.pid, it])).values()];
    await sleep(1500);
    const sum = (pids) => pids.reduce((total, pid) => total + cpu(pid), 0);
    const read = () => [sum(served.between), sum(served.workers)];
    const before = all.reduce((total, it) => total + it.heard, 0);
    const idle = read();
    const count = rate * seconds;
    const began = performance.now();
    senders.forEach((it) => it.say(event, rate, count));
    const expected = before + count * members;
    while (all.reduce((total, it) => total + it.heard, 0) < expected) {
      if (performance.now() - began > seconds * 1000 + 60_000) throw new Error(`not all was heard of ${event}`);
      await sleep(20);
    }
    const [between, workers] = read().map((now, at) => (now - idle[at]) / count);
    all.forEach(({ socket }) => socket.terminate());
    return { between, workers };
  } finally {
    await served.stop();
  }
}

/** Percentiles of the time from accept to acknowledgement in microseconds, of connections that come meanwhile. */
async function handOver(served, busy) {
  const all = await gather(served.port, WORKERS * 8);
  const senders = [...new Map(all.map((it) => [it.pid, it])).values()];
  if (senders.length < WORKERS) throw new Error('not every worker has a member');
  const histogram = async () => new Map([...(await get(served.admin, '/metrics')).body
    .matchAll(/^haft_handover_seconds_bucket\{le="([^"]+)"\} (\d+)/gm)].map(([, le, count]) => [Number(le.replace('+Inf', 'Infinity')), Number(count)]));
  const messages = async () => Number(/^haft_rooms_messages_total (\d+)/m.exec((await get(served.admin, '/metrics')).body)[1]);
  if (busy) senders.forEach((it) => it.say('exchange', exchange / WORKERS, exchange / WORKERS * (seconds + 3)));
  await sleep(1500);
  const [before, sent, began] = [await histogram(), await messages(), performance.now()];
  let done = 0;
  while (performance.now() - began < seconds * 1000) {
    await new Promise((closed) => {
      const socket = net.connect({ port: served.port, host: '127.0.0.1', localAddress: `127.9.${(done >> 8) & 127}.${1 + (done & 127)}` });
      socket.once('connect', () => socket.write('GET /socket.io/ HTTP/1.0\r\n\r\n')).once('close', closed).once('error', closed).resume();
    });
    done++;
    await sleep(2);
  }
  const after = await histogram();
  const rateSeen = ((await messages()) - sent) / ((performance.now() - began) / 1000);
  const total = after.get(Infinity) - before.get(Infinity);
  const at = (share) => [...after].sort(([one], [other]) => one - other).find(([le, count]) => count - before.get(le) >= share * total)[0] * 1e6;
  all.forEach(({ socket }) => socket.terminate());
  return { p50: at(0.5), p99: at(0.99), rate: rateSeen, connections: total };
}

const median = (values) => values.sort((one, other) => one - other)[values.length >> 1];
const show = (value) => value.toFixed(value < 100 ? 1 : 0);

const contenders = {
  'haft, rooms shared': [() => haft([]), 'all'],
  "Node's primary with @socket.io/cluster-adapter": [nodePrimary, 'all'],
  'redis-server with @socket.io/redis-adapter': [redis, 'all'],
  'each worker sends to its own members': [() => haft([], '--rooms', 'off'), 'own'],
};
const seen = Object.fromEntries(Object.keys(contenders).map((name) => [name, { between: [], workers: [] }]));
for (let round = 0; round < rounds; round++) {
  for (const [name, [contender, event]] of Object.entries(contenders)) {
    const { between, workers } = await broadcasts(contender, event);
    seen[name].between.push(between);
    seen[name].workers.push(workers);
  }
}
console.log(`A broadcast to ${members} members on ${WORKERS} workers, ${rate} a second, CPU in us: median of ${rounds}`);
for (const [name, { between, workers }] of Object.entries(seen)) {
  console.log(`  ${name}: between the workers ${show(median(between))}, the workers ${show(median(workers))}`);
}
const [ours, primary, redisOnes, own] = Object.values(seen).map(({ between, workers }) => ({ between: median(between), workers: median(workers) }));
const clients = Math.max(redisOnes.workers - own.workers, 0);
console.log(`  haft's master costs 1/${show(primary.between / ours.between)} of Node's primary, and 1/${show((redisOnes.between + clients) / ours.between)} of Redis and its clients`);

const served = await haft([]);
try {
  for (let round = 0; round < rounds; round++) {
    for (const busy of [false, true]) {
      const { p50, p99, rate: messages, connections } = await handOver(served, busy);
      console.log(`accept to acknowledgement, ${show(messages)} messages/s between workers: p50 at most ${show(p50)} us, p99 at most ${show(p99)} us (${connections} connections)`);
      await sleep(4000);
    }
  }
} finally {
  await served.stop();
}
process.exit(0);

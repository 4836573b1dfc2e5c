// What a message between hosts costs: `node tests/bench/rooms-hosts.mjs`, after a release build and npm ci in tests/e2e.
//
// Three haft with two Node workers each share rooms over a redis-server. One client of the first host has COUNT messages of 100
// bytes sent to all, which is one client of each worker. Measured is the CPU time for each of them: of redis-server, of the haft
// that publishes, of one that receives, and of a worker there, which sends it to its client. It ends by itself.

import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Child } from '../e2e/lib/child.mjs';
import { Client } from '../e2e/lib/client.mjs';
import { redis } from '../e2e/lib/databases.mjs';
import { Haft } from '../e2e/lib/haft.mjs';
import { SERVER, onAll, one, run } from '../e2e/lib/node-rooms.mjs';
import { until } from '../e2e/lib/wait.mjs';

const COUNT = Number(process.env.COUNT ?? 20_000);
const [ROUNDS, HOSTS, WORKERS] = [3, 3, 2];
const folder = mkdtempSync(join(tmpdir(), 'haft-rooms-hosts-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const place = (name) => {
  const own = join(folder, name);
  mkdirSync(own);
  return { folder: own, children: [], child: (command, ...args) => new Child(command, args, { cwd: own }) };
};

/** CPU time of a process in microseconds. */
function cpu(pid) {
  const ran = (thread) => Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]) / 1000;
  return readdirSync(`/proc/${pid}/task`).reduce((sum, thread) => sum + ran(thread), 0);
}

const server = await redis(place('redis'));
const hosts = await Promise.all(Array.from({ length: HOSTS }, async (_, index) => {
  const haft = new Haft(place(`host-${index}`), ['-w', `${WORKERS}`, '--affinity', 'session', '--redis', server.url, '--', 'node', SERVER]);
  await haft.ready();
  return haft;
}));
let turn = 0;
const clients = one(await onAll(HOSTS * WORKERS, 24, async (home) => {
  const haft = hosts[turn++ % HOSTS];
  const client = await new Client(haft.url, home, { transports: ['websocket'] }).connected();
  return Object.assign(client, await client.hello(), { haft });
}));
for (const haft of hosts) await until('the hosts to know each other', async () => (await haft.total('haft_rooms_hosts')) === HOSTS - 1);
const speaker = clients.find(({ haft }) => haft === hosts[0]);
let heard = 0;
clients.forEach(({ socket }) => socket.on('all', () => heard++));
const say = async (count) => {
  const expected = heard + count * clients.length;
  await run(speaker, `for (let n = 0; n < args; n += 50) {
    for (let i = 0; i < 50; i++) io.emit("all", "x".repeat(100));
    await new Promise((done) => setTimeout(done, 5));
  }`, count);
  await until('all to hear all', () => heard >= expected);
};
await say(1000);
const worker = clients.find(({ haft }) => haft === hosts[1]).pid;
const pids = { redis: server.child.pid, publisher: hosts[0].child.pid, receiver: hosts[1].child.pid, worker };
const rounds = [];
for (let round = 0; round < ROUNDS; round++) {
  const before = Object.values(pids).map(cpu);
  const began = performance.now();
  await say(COUNT);
  const seconds = (performance.now() - began) / 1000;
  rounds.push(Object.values(pids).map((pid, at) => (cpu(pid) - before[at]) / COUNT));
  console.log(`round ${round + 1}: ${Math.round(COUNT / seconds)} messages/s`);
}
const median = (at) => rounds.map((round) => round[at]).sort((one, other) => one - other)[ROUNDS >> 1].toFixed(1);
Object.keys(pids).forEach((name, at) => console.log(`${name}: ${median(at)} us of CPU for each message`));
for (const haft of hosts) {
  const lost = await haft.counts('haft_rooms_dropped_total', 'reason');
  if (Object.entries(lost).some(([why, count]) => why !== 'unknown' && count > 0)) throw new Error(`lost: ${JSON.stringify(lost)}`);
}
clients.forEach((client) => client.close());
process.exit(0);

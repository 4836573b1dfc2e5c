// What the primary costs: CPU time per connection of haft and of what it replaces, in front of the same workers.
//
//     node tests/bench/node-primary.mjs [CONNECTIONS ROUNDS WORKERS]      (5000 5 2; needs npm ci in tests/e2e)
//
// All of them run the same server, one request a connection. They take turns within each round, in changing order, so that
// what else the machine does hits all alike. Writes a Markdown table. $HAFT is the binary, else the release build.

import { readdirSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { fileURLToPath } from 'node:url';

import { Child } from '../e2e/lib/child.mjs';
import { homes } from '../e2e/lib/home.mjs';
import { inTurns, until } from '../e2e/lib/wait.mjs';

const [CONNECTIONS = 5_000, ROUNDS = 5, WORKERS = 2] = process.argv.slice(2).map(Number);
const AT_ONCE = 64;
const HAFT = process.env.HAFT ?? fileURLToPath(new URL('../../target/release/haft', import.meta.url));
const SERVER = fileURLToPath(new URL('../e2e/lib/node-style-server.cjs', import.meta.url));
const HOMES = homes(60).map(({ address }) => address);
const REQUEST = 'GET /haft/page.json HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n';

const haft = (port, style, ...flags) => [HAFT, '-w', WORKERS, '-l', `127.0.0.1:${port}`, ...flags, '--', 'node', SERVER, style];
const node = (port, style) => ['node', SERVER, style, WORKERS, port];

/** Name and command of each. */
const CONTENDERS = [
  ['haft', (port) => haft(port, 'plain')],
  ['haft, by message (`--node-style classic`)', (port) => haft(port, 'classic', '--node-style', 'classic')],
  ["Node's cluster, round robin (not sticky)", (port) => node(port, 'plain')],
  ['the classic script', (port) => node(port, 'classic')],
  ['npm sticky-session 1.1.2', (port) => node(port, 'sticky-session')],
  ['npm @socket.io/sticky 2.0.1', (port) => node(port, 'socket.io-sticky-2')],
];

const contenders = [];
for (const [name, command] of CONTENDERS) contenders.push(await start(name, command));
for (const contender of contenders) await load(contender.port, Math.min(1_000, CONNECTIONS));
for (let round = 0; round < ROUNDS; round++) {
  for (let turn = 0; turn < contenders.length; turn++) await measure(contenders[(round + turn) % contenders.length]);
}
report();
await Promise.all(contenders.map(({ child }) => child.end('SIGTERM', 60_000)));
process.exit(0);

/** Starts one of them and waits until all its workers answer. */
async function start(name, command) {
  const port = await freePort();
  const [program, ...args] = command(port).map(String);
  const child = new Child(program, args);
  const contender = { name, port, child, primary: [], workers: [] };
  await until(`an answer of ${name}`, async () => {
    if (child.how) throw new Error(`it has ended: ${child.tail()}`);
    await load(port, HOMES.length);
    return workersOf(child.pid).length === WORKERS;
  }, { within: 30_000, every: 200 });
  return contender;
}

async function measure(contender) {
  const processes = [[contender.child.pid], workersOf(contender.child.pid)];
  const before = processes.map(cpu);
  await load(contender.port, CONNECTIONS);
  const [primary, workers] = processes.map((pids, index) => (cpu(pids) - before[index]) / CONNECTIONS / 1_000);
  contender.primary.push(primary);
  contender.workers.push(workers);
}

/** That many requests, each over a connection of its own. */
function load(port, count) {
  return inTurns(Array.from({ length: count }, (_, index) => HOMES[index % HOMES.length]), AT_ONCE, (localAddress) => {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ host: '127.0.0.1', port, localAddress });
      let answer = '';
      socket.setEncoding('latin1').setTimeout(30_000, () => socket.destroy(new Error('no answer')));
      socket.on('connect', () => socket.write(REQUEST));
      socket.on('data', (part) => (answer += part));
      socket.on('error', reject);
      socket.on('end', () => (answer.startsWith('HTTP/1.1 200') ? resolve() : reject(new Error(answer || 'no answer'))));
    });
  });
}

/** CPU time of processes in nanoseconds, over all their threads (/proc/PID/task/TID/schedstat, first field). */
function cpu(pids) {
  let sum = 0;
  for (const pid of pids) {
    for (const tid of readdirSync(`/proc/${pid}/task`)) {
      sum += Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'latin1').split(' ')[0]);
    }
  }
  return sum;
}

function workersOf(pid) {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function report() {
  const spread = (values) => {
    const [least, middle, most] = [values[0], values[values.length >> 1], values.at(-1)].map((value) => value.toFixed(1));
    return `${middle} (${least} to ${most})`;
  };
  const sorted = (values) => values.toSorted((a, b) => a - b);
  const median = (values) => sorted(values)[values.length >> 1];
  console.log(`CPU per connection in microseconds: median (least to most) of ${ROUNDS} rounds of ${CONNECTIONS} connections, `
    + `${AT_ONCE} at once, ${WORKERS} workers, Node ${process.versions.node}.\n`);
  console.log('| primary | its CPU | against haft | CPU of the workers |\n|---|---|---|---|');
  for (const { name, primary, workers } of contenders) {
    const ratio = (median(primary) / median(contenders[0].primary)).toFixed(1);
    console.log(`| ${name} | ${spread(sorted(primary))} | ${ratio} | ${spread(sorted(workers))} |`);
  }
}

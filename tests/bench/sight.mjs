// What it costs that workers report their state and that haft watches them: CPU time of master and workers for each
// connection, with all of it and without any.
//
//     node tests/bench/sight.mjs [CONNECTIONS BLOCKS]      (1000 12; needs npm ci in tests/e2e)
//
// Two haft run at once, each with two Node workers and --affinity session. One has the scoreboard, --max-memory, --max-age,
// --max-restarts and a health check each second, and its /status is read each second, as by haft top; the other has none of
// that (a shell takes the page from its workers). Both look for alarms, which nothing turns off: a sample of counters every five
// seconds, never for a connection. They get blocks of connections in turns, so that what else the machine does
// hits both alike. CPU time is the scheduler's, of all threads (/proc/PID/task/TID/schedstat). $HAFT is the binary, else the
// release build.

import { readdirSync, readFileSync } from 'node:fs';

import { file } from '../e2e/lib/files.mjs';
import { program } from '../e2e/lib/program.mjs';
import { inTurns } from '../e2e/lib/wait.mjs';
import http from 'node:http';

const [CONNECTIONS = 1_000, BLOCKS = 12] = process.argv.slice(2).map(Number);
const AT_ONCE = 8;
const SERVER = file('session-server.cjs');
const CARE = ['--max-memory', '8G', '--max-age', '1day', '--max-restarts', '100/1h', '--health-check', '/haft/page.json', '--health-interval', '1s'];
const COMMON = ['-w', '2', '--affinity', 'session'];

program('sight and care, on and off', measure, { minutes: 5 + (CONNECTIONS * BLOCKS) / 20_000 });

async function measure(place) {
  const on = await place.haft(...COMMON, ...CARE, '--', process.execPath, SERVER);
  const off = await place.haft(...COMMON, '--', 'sh', '-c', 'unset HAFT_SCOREBOARD; exec node "$0"', SERVER);
  const sides = { on: await side(on), off: await side(off) };
  const watching = setInterval(() => on.status().catch(() => {}), 1_000);
  for (const each of Object.values(sides)) await load(each.url, CONNECTIONS);
  for (let block = 0; block < BLOCKS; block += 1) {
    for (const which of block % 2 === 0 ? ['on', 'off'] : ['off', 'on']) {
      const { url, master, workers, master_us, workers_us } = sides[which];
      const [before, their] = [cpu(master), workers.map(cpu)];
      await load(url, CONNECTIONS);
      master_us.push((cpu(master) - before) / CONNECTIONS);
      workers_us.push(workers.reduce((sum, pid, index) => sum + cpu(pid) - their[index], 0) / CONNECTIONS);
    }
  }
  clearInterval(watching);
  for (const who of ['master_us', 'workers_us']) {
    const pairs = sides.on[who].map((with_, index) => with_ - sides.off[who][index]);
    const text = ['on', 'off'].map((which) => `${which} ${median(sides[which][who]).toFixed(1)} us`).join(', ');
    place.say(`${who.replace('_us', '')}, for each connection: ${text}; difference within a pair: median ${median(pairs).toFixed(2)} us, quartiles ${quantile(pairs, 0.25).toFixed(2)} to ${quantile(pairs, 0.75).toFixed(2)}`);
  }
  await on.stop();
  await off.stop();
}

async function side(haft) {
  const { pid, slots } = await haft.status();
  return { url: haft.url, master: pid, workers: slots.map((slot) => slot.pid), master_us: [], workers_us: [] };
}

/** Microseconds that all threads of a process have run. */
function cpu(pid) {
  const threads = readdirSync(`/proc/${pid}/task`);
  const run = (thread) => Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
  return threads.reduce((sum, thread) => sum + run(thread), 0) / 1_000;
}

async function load(url, count) {
  await inTurns(Array(count), AT_ONCE, () => new Promise((resolve, reject) => {
    const request = http.get(`${url}/haft/page.json`, { agent: false }, (response) => response.resume().on('end', resolve).on('error', reject));
    request.on('error', reject);
  }));
}

function quantile(values, share) {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

function median(values) {
  return quantile(values, 0.5);
}

// New sessions while the event loop of one of four workers is late by 200 ms: how many of them it gets, and how long a new
// session takes.
//
//     node tests/bench/lagging-worker.mjs [SESSIONS ROUNDS]      (400 3; needs npm ci in tests/e2e)
//
// In turns, in changing order: with the workers' word of how late they are, and without (a shell takes the page of the
// scoreboard from them), where a new session goes to the worker with the fewest. All sessions stay. $HAFT is the binary, else
// the release build.

import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import { file } from '../e2e/lib/files.mjs';
import { tagOf } from '../e2e/lib/preload-tag.mjs';
import { program } from '../e2e/lib/program.mjs';
import { inTurns } from '../e2e/lib/wait.mjs';

const [SESSIONS = 400, ROUNDS = 3] = process.argv.slice(2).map(Number);
const WORKERS = 4;
const AT_ONCE = 8;
/** Milliseconds for which the slow worker does nothing, again and again. */
const LATE = 200;
/** Milliseconds until it is seen: workers report once a second. */
const SEEN = 3_000;
const SLOW = `
  if (process.env.NODE_APP_INSTANCE === '0') {
    const nothing = new Int32Array(new SharedArrayBuffer(4));
    setTimeout(() => setInterval(() => Atomics.wait(nothing, 0, 0, ${LATE}), 1), 500);
  }
  require(${JSON.stringify(file('session-server.cjs'))});
`;

const START = { told: 'exec node -e "$0"', untold: 'unset HAFT_SCOREBOARD; exec node -e "$0"' };

program('one of four workers is late', measure, { minutes: 5 + (ROUNDS * SESSIONS) / 60 });

async function measure(place) {
  const times = { told: [], untold: [] };
  const counts = { told: Array(WORKERS).fill(0), untold: Array(WORKERS).fill(0) };
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const turn of round % 2 === 0 ? ['told', 'untold'] : ['untold', 'told']) {
      const haft = await place.haft('-w', `${WORKERS}`, '--affinity', 'session', '--', 'sh', '-c', START[turn], SLOW);
      await sleep(SEEN);
      await inTurns(Array(SESSIONS), AT_ONCE, async () => {
        const begun = performance.now();
        const { sid } = await open(haft.url);
        times[turn].push(performance.now() - begun);
        counts[turn][tagOf(sid).slot] += 1;
      });
      await haft.stop();
    }
  }
  for (const turn of ['untold', 'told']) place.say(`${turn.padEnd(7)} ${percentiles(times[turn]).text}; sessions by slot, the late one first: ${counts[turn]}`);
  const [late, ...others] = counts.told;
  const mean = others.reduce((sum, count) => sum + count) / others.length;
  const [before, now] = [times.untold, times.told].map(percentiles);
  place.say(`the late worker gets ${((100 * late) / mean).toFixed(1)} % of what another gets; p99 of a new session: ${(now.p99 / before.p99).toFixed(2)} times that without`);
}

/** Begins a session by long-polling, and yields what the worker says of it. */
function open(url) {
  return new Promise((resolve, reject) => {
    const request = http.get(`${url}/socket.io/?EIO=4&transport=polling`, { agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (part) => (body += part)).on('error', reject);
      response.on('end', () => {
        try {
          resolve(JSON.parse(body.slice(1)));
        } catch {
          reject(new Error(`${response.statusCode}: ${body}`));
        }
      });
    });
    request.on('error', reject);
  });
}

function percentiles(times) {
  const sorted = times.toSorted((one, other) => one - other);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  const [p50, p99] = [at(0.5), at(0.99)];
  return { p99, text: `${sorted.length} sessions, p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms` };
}

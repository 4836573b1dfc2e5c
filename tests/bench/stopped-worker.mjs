// What a stopped worker costs the clients of the others: the 99th percentile of their answers' times while one of four
// workers is under SIGSTOP, against that of the undisturbed run.
//
//     node tests/bench/stopped-worker.mjs [SECONDS ROUNDS]      (4 5; needs npm ci in tests/e2e)
//
// Both are measured in turns within each round, in changing order, so that what else the machine does hits both alike. The
// stopped worker's clients go on asking all the while and wait. $HAFT is the binary, else the release build.

import { homes } from '../e2e/lib/home.mjs';
import { ask } from '../e2e/lib/node-ledger.mjs';
import { to } from '../e2e/lib/node-requests.mjs';
import { program } from '../e2e/lib/program.mjs';
import { inTurns } from '../e2e/lib/wait.mjs';

const [SECONDS = 4, ROUNDS = 5] = process.argv.slice(2).map(Number);
/** Clients of the other workers at once, and of the stopped one. */
const AT_ONCE = 4;
const WAITING = 100;

program('one of four workers is stopped', measure, { minutes: 5 + (SECONDS * ROUNDS) / 15 });

async function measure(place) {
  // Longer than it is ever stopped: what is measured is a worker that hangs and has not been found out yet.
  const haft = await place.haft('-w', '4', '--hang-timeout', '1h', '--hold-timeout', '1h');
  const { slots } = await haft.status();
  const target = { ...to(haft.address), path: '/haft/page.json' };
  const victim = slots[0].pid;
  const [its, others] = [[], []];
  for (const { address } of homes(200)) {
    const { worker } = JSON.parse((await ask(target, address)).answer);
    (worker.slot === 0 ? its : others).push(address);
  }

  const times = { undisturbed: [], stopped: [] };
  await load(target, others, 1);
  for (let round = 0; round < ROUNDS; round++) {
    const turns = round % 2 === 0 ? ['undisturbed', 'stopped'] : ['stopped', 'undisturbed'];
    for (const turn of turns) {
      if (turn === 'undisturbed') {
        times[turn].push(...(await load(target, others, SECONDS)));
        continue;
      }
      process.kill(victim, 'SIGSTOP');
      const waiting = Array.from({ length: WAITING }, (_, i) => ask(target, its[i % its.length]));
      times[turn].push(...(await load(target, others, SECONDS)));
      process.kill(victim, 'SIGCONT');
      const failed = (await Promise.all(waiting)).filter(({ error }) => error);
      if (failed.length > 0) throw new Error(`waiting clients are served after all: ${JSON.stringify(failed[0])}`);
    }
  }
  const [before, during] = [times.undisturbed, times.stopped].map(percentiles);
  place.say(`undisturbed: ${before.text}`);
  place.say(`stopped:     ${during.text}; ${WAITING} clients of the stopped worker waited each time and were served`);
  place.say(`p99 of the others' clients: ${(during.p99 / before.p99).toFixed(2)} times that of the undisturbed run`);
  await haft.stop();
}

/** The times of all answers, in ms, that clients at these addresses get who ask without pause for so long. */
async function load(target, addresses, seconds) {
  const end = performance.now() + seconds * 1_000;
  const times = [];
  await inTurns(Array(AT_ONCE), AT_ONCE, async (_, lane) => {
    for (let turn = lane; performance.now() < end; turn += AT_ONCE) {
      const begun = performance.now();
      const { error } = await ask(target, addresses[turn % addresses.length]);
      if (error) throw new Error(`a client of another worker failed: ${error}`);
      times.push(performance.now() - begun);
    }
  });
  return times;
}

function percentiles(times) {
  const sorted = times.toSorted((one, other) => one - other);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  const [p50, p99] = [at(0.5), at(0.99)];
  return { p99, text: `${sorted.length} answers, p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms` };
}

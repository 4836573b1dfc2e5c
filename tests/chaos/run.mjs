// Nothing is lost, whatever happens to workers, to the master and to its means: many clients, a schedule of misfortunes, and
// two books about every single connection that must agree.
//
//     node tests/chaos/run.mjs [--connections 5000] [--seed N] [--rate 200] [--workers builtin,node,node-channel]
//         [--json FILE] [--log FILE]
//
// So many connections for each kind of workers, one kind after the other. `node-channel`: connections come to Node over its
// own channel (--no-preload). Needs `npm ci` in tests/e2e, Python 3 and prlimit (util-linux). $HAFT is the binary, else the
// release build. The same words and the same seed mean the same clients and the same schedule. --json adds one line for each
// kind to the file, which table.mjs adds up; --log writes haft's log and, in its place in it, what was done to haft.

import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { to } from '../e2e/lib/node-requests.mjs';
import { program } from '../e2e/lib/program.mjs';
import { until } from '../e2e/lib/wait.mjs';
import './judging.mjs';
import { Ledger } from './ledger.mjs';
import { Load } from './load.mjs';
import { Masters } from './masters.mjs';
import { FLAGS, Misfortunes, schedule } from './misfortunes.mjs';
import { sentence } from './table.mjs';

const options = {
  connections: { type: 'string', default: '5000' },
  seed: { type: 'string', default: `${Date.now() % 1_000_000}` },
  rate: { type: 'string', default: '200' },
  workers: { type: 'string', default: 'builtin,node,node-channel' },
  json: { type: 'string' },
  log: { type: 'string' },
};
const { values } = parseArgs({ options });
const [TOTAL, SEED, RATE] = [values.connections, values.seed, values.rate].map(Number);

/** Whether a seed has the built-in workers killed when they hang; Node's then are not, and the other way round. */
const KILLS_BUILTIN = SEED % 2 === 0;
const NODE = ['--', 'node', fileURLToPath(new URL('server.cjs', import.meta.url))];
const KINDS = {
  builtin: { killed: KILLS_BUILTIN, rooms: true, flags: ['--ping-interval', '2000', '--ping-timeout', '3000'] },
  node: { killed: !KILLS_BUILTIN, rooms: true, flags: NODE },
  // Without the preload Node has no rooms of haft's, and exits when its primary dies.
  'node-channel': { killed: !KILLS_BUILTIN, exitsWithMaster: true, flags: ['--no-preload', ...NODE] },
};
const COUNTERS = {
  redelivered: 'haft_connections_redelivered_total',
  returned: 'haft_connections_returned_total',
  hung: 'haft_workers_hung_total',
};

/** Time from one misfortune to the next, at the given rate. */
const SECONDS_BETWEEN = 0.7;
/** After so many misfortunes each kind of them has happened. */
const ENOUGH = 20;
/** Lines of haft's log that are kept to be shown. */
const KEPT = 300;
/** Wrongs that a failure shows. */
const SHOWN = 20;

for (const kind of values.workers.split(',')) {
  if (!KINDS[kind] || !(TOTAL > 0 && RATE > 0 && SEED >= 0)) throw new Error('the flags are explained at the top of this file');
  program(`${kind} workers, seed ${SEED}: nothing is lost`, (place) => phase(place, kind), { minutes: 6 + TOTAL / RATE / 2 });
}

async function phase(place, kind) {
  const { killed, rooms, exitsWithMaster, flags } = KINDS[kind];
  const log = ['--log-level', 'info,haft::ledger=trace'];
  const all = ['-w', '4', ...FLAGS, ...log, ...(killed ? ['--hang-kill'] : []), ...flags];
  const haft = await new Masters(place, all, Object.values(COUNTERS)).start();
  const ledger = new Ledger({ exitsWithMaster });
  const reader = read(haft.all, ledger);
  place.atEnd(reader.stop);

  const begun = Date.now();
  const load = new Load(to(haft.address), { seed: SEED, rate: RATE, total: TOTAL, note: (outcome) => ledger.client(outcome) });
  const misfortunes = new Misfortunes(haft, ledger, (what) => record([`${new Date().toISOString()} -- ${what}`]));
  const running = load.run();
  // Its failure is awaited below.
  running.catch(() => {});
  await torment(load, misfortunes, schedule(SEED, TOTAL, SECONDS_BETWEEN * RATE), haft);
  await running;
  const counters = await rest(haft, ledger, misfortunes.counts);
  const seconds = Math.round((Date.now() - begun) / 1_000);
  await haft.stop();
  await until('the whole log to be read', () => reader.hasRead(/stopped: accepted/));

  const { wrong, fates } = ledger.verdict();
  const sums = {
    kind, seed: SEED, rate: RATE, seconds, hangKill: killed, ...ledger.counts, ...fates, ...misfortunes.counts, ...counters,
    wrong: wrong.length,
  };
  if (values.json) appendFileSync(values.json, `${JSON.stringify(sums)}\n`);
  const line = sentence(sums);
  place.say(line);
  assert.equal(wrong.length, 0, `${line}\n${wrong.length} wrongs:\n${wrong.slice(0, SHOWN).join('\n')}`);
  judge(sums, { rooms, schedule: TOTAL / (RATE * SECONDS_BETWEEN) });
}

/** Lets everything happen at its time, and waits until it has been put right. */
async function torment(load, misfortunes, events, haft) {
  for (const event of events) {
    const due = () => load.begun >= event.after;
    await until(`connection ${event.after}`, due, { within: 120_000, every: 5 });
    await misfortunes.happen(event);
    // It asserts that every connection is accounted for.
    await haft.ledger();
  }
  await misfortunes.over();
}

/**
 * Waits until haft is as it was: every slot ready, no client waiting. The master's counters must then say what its log says,
 * and all that clients say if it is the only one there was. Gives the counters of all masters.
 */
async function rest(haft, ledger, { masterDeaths }) {
  await until('all slots to be ready again', async () => {
    const { slots, reload } = await haft.status();
    const well = slots.every(({ state, hung, drained }) => state === 'ready' && !hung && !drained);
    if (well && reload?.state !== 'under_way') return true;
    throw new Error(JSON.stringify({ slots, reload }));
  }, { within: 60_000, every: 100 });
  const settled = () => (masterDeaths ? ledger.now.delivered + ledger.now.refused : ledger.counts.connections);
  const { refused, delivered } = await haft.current.settled(settled);
  assert.deepEqual(
    { delivered, refused, hangKills: await haft.current.total('haft_workers_hang_killed_total') },
    ledger.now,
    'the counters say what the log says',
  );
  assert.equal(await haft.current.total('haft_connections_held'), 0, 'no connection is held');
  const counts = await haft.counts();
  return Object.fromEntries(Object.entries(COUNTERS).map(([name, metric]) => [name, counts[metric]]));
}

/** The sums agree, and the test has tested something. */
function judge(sums, { rooms, schedule }) {
  assert.equal(sums.connections, TOTAL, 'every client got through to haft');
  assert.equal(sums.served + sums.failed + sums.sentAway, TOTAL, 'every client has a fate');
  assert.ok(sums.served > TOTAL / 4, 'many are served');
  if (schedule < ENOUGH) return;
  for (const what of ['kills', 'stops', 'reloads', 'scales', 'masterDeaths']) {
    assert.ok(sums[what] + sums.passedOver > 0, `${what} happened, or could not`);
  }
  if (rooms) assert.ok(sums.fromOtherWorkers > 0, 'rooms reach other workers');
}

/** Adds lines to the file, if one is wanted. */
function record(lines) {
  if (values.log && lines.length > 0) appendFileSync(values.log, `${lines.join('\n')}\n`);
}

/** Gives the logs of all masters to the ledger, line by line, and forgets them but for their ends. */
function read(masters, ledger) {
  const next = [];
  let last = '';
  const take = () => masters.forEach(({ child: { lines } }, number) => {
    next[number] ??= 0;
    record(lines.slice(next[number]));
    for (; next[number] < lines.length; next[number]++) ledger.read((last = lines[next[number]]), number);
    if (lines.length > 2 * KEPT) next[number] -= lines.splice(0, lines.length - KEPT).length;
  });
  const timer = setInterval(take, 50);
  return {
    stop: () => clearInterval(timer),
    hasRead: (pattern) => {
      take();
      return pattern.test(last);
    },
  };
}

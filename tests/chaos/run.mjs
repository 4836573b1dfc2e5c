// Nothing is lost, whatever happens to workers and to the master's means: many clients, a schedule of misfortunes, and two
// books about every single connection that must agree.
//
//     node tests/chaos/run.mjs [--seconds 60] [--seed N] [--rate 200] [--workers builtin|node|both]
//         [--log FILE]
//
// The seconds are shared by the two kinds of workers. Needs `npm ci` in tests/e2e and prlimit (util-linux). $HAFT is the
// binary, else the release build. The same seed means the same clients and the same schedule. FILE gets haft's log and, in
// its place in it, what was done to haft.

import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { parse, total as sum } from '../e2e/lib/metrics.mjs';
import { to } from '../e2e/lib/node-requests.mjs';
import { program } from '../e2e/lib/program.mjs';
import { until } from '../e2e/lib/wait.mjs';
import './judging.mjs';
import { Ledger } from './ledger.mjs';
import { Load } from './load.mjs';
import { FLAGS, Misfortunes, schedule } from './misfortunes.mjs';

const options = {
  seconds: { type: 'string', default: '60' },
  seed: { type: 'string', default: `${Date.now() % 1_000_000}` },
  rate: { type: 'string', default: '200' },
  workers: { type: 'string', default: 'both' },
  log: { type: 'string' },
};
const { values } = parseArgs({ options });
const [SECONDS, SEED, RATE] = [values.seconds, values.seed, values.rate].map(Number);

/** Whether a seed has the built-in workers killed when they hang; Node's then are not, and the other way round. */
const KILLS_BUILTIN = SEED % 2 === 0;
const KINDS = {
  builtin: { killed: KILLS_BUILTIN, flags: ['--ping-interval', '2000', '--ping-timeout', '3000'] },
  node: { killed: !KILLS_BUILTIN, flags: ['--', 'node', fileURLToPath(new URL('server.cjs', import.meta.url))] },
};
const WANTED = values.workers === 'both' ? ['builtin', 'node'] : [values.workers];

/** Connections from one misfortune to the next, as a time at the given rate. */
const SECONDS_BETWEEN = 0.7;
/** Lines of haft's log that are kept to be shown. */
const KEPT = 300;
/** Wrongs that a failure shows. */
const SHOWN = 20;

for (const kind of WANTED) {
  if (!KINDS[kind] || !(SECONDS > 0 && RATE > 0 && SEED >= 0)) throw new Error('the flags are explained at the top of this file');
  const seconds = SECONDS / WANTED.length;
  program(`${kind} workers, seed ${SEED}: nothing is lost`, (place) => phase(place, kind, seconds), { minutes: 6 + seconds / 20 });
}

async function phase(place, kind, seconds) {
  const { killed, flags } = KINDS[kind];
  const log = ['--log-level', 'info,haft::ledger=trace'];
  const haft = await place.haft('-w', '4', ...FLAGS, ...log, ...(killed ? ['--hang-kill'] : []), ...flags);
  const ledger = new Ledger();
  const reader = read(haft.child, ledger);
  place.atEnd(reader.stop);

  const total = Math.round(seconds * RATE);
  const load = new Load(to(haft.address), { seed: SEED, rate: RATE, total, note: (outcome) => ledger.client(outcome) });
  const misfortunes = new Misfortunes(haft, ledger, (what) => record([`${new Date().toISOString()} -- ${what}`]));
  const running = load.run();
  // Whoever waits for it waits for it below.
  running.catch(() => {});
  await torment(load, misfortunes, schedule(SEED, total, SECONDS_BETWEEN * RATE), haft);
  await running;
  const metrics = await rest(haft, ledger);
  await haft.stop();
  await until('the whole log to be read', () => reader.hasRead(/stopped: accepted/));

  const violations = ledger.violations();
  const line = report(ledger.counts, misfortunes.counts, { ...metrics, wrong: violations.length }, { kind, killed });
  place.say(line);
  assert.equal(violations.length, 0, `${line}\n${violations.length} wrongs:\n${violations.slice(0, SHOWN).join('\n')}`);
  judge(ledger.counts, misfortunes.counts, metrics, total);
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

/** Waits until haft is as it was: every slot ready, nobody waiting. Gives its counters. */
async function rest(haft, ledger) {
  await until('all slots to be ready again', async () => {
    const { slots, reload } = await haft.status();
    const well = slots.every(({ state, hung, drained }) => state === 'ready' && !hung && !drained);
    if (well && reload?.state !== 'under_way') return true;
    throw new Error(JSON.stringify({ slots, reload }));
  }, { within: 60_000, every: 100 });
  const { refused, delivered } = await haft.settled(() => ledger.counts.connections);
  const samples = parse((await haft.get('/metrics')).body);
  const count = (name) => sum(samples, name);
  return {
    refused,
    delivered,
    held: count('haft_connections_held'),
    redelivered: count('haft_connections_redelivered_total'),
    returned: count('haft_connections_returned_total'),
    hung: count('haft_workers_hung_total'),
    hangKills: count('haft_workers_hang_killed_total'),
  };
}

/** The two books agree in their sums, and the test has tested something. */
function judge(clients, misfortunes, metrics, total) {
  assert.equal(clients.connections, total, 'every client got through to haft');
  assert.equal(clients.delivered, metrics.delivered, 'the log tells of every delivery');
  assert.equal(clients.refused, metrics.refused, 'the log tells of every refusal');
  assert.equal(clients.hangKills, metrics.hangKills, 'the log tells of every worker that was killed as hung');
  assert.equal(metrics.held, 0, 'nobody waits');
  assert.ok(clients.served > total / 2, 'most are served');
  const { kills, stops, reloads, scales } = misfortunes;
  if (total >= RATE * SECONDS_BETWEEN * 20) assert.ok(Math.min(kills, stops, reloads, scales) > 0, 'everything happened');
}

/** One line of totals. Whoever failed had been acknowledged by a worker that was killed, or refused; else it is wrong. */
function report(clients, misfortunes, metrics, { kind, killed }) {
  const { kills, stops, reloads, scales, drains, starvations, passedOver } = misfortunes;
  return `${kind} workers, seed ${SEED}: ${clients.connections} connections (${clients.websockets} WebSockets), ${kills} kills, `
    + `${stops} stops (${metrics.hung} found hung, ${metrics.hangKills} killed for it${killed ? '' : ': off'}), ${reloads} reloads, `
    + `${scales} scales, ${drains} drains, ${starvations} times no descriptors (${passedOver} misfortunes could not happen); `
    + `${metrics.redelivered} redelivered, ${metrics.returned} returned; ${clients.served} served, ${clients.sentAway} asked by `
    + `leaving workers to come again, ${metrics.refused} refused while the master had no descriptors, `
    + `${clients.failed - metrics.refused} lost with workers that had acknowledged them; failed though unacknowledged: ${metrics.wrong}`;
}

/** Adds lines to the file, if one is wanted. */
function record(lines) {
  if (values.log && lines.length > 0) appendFileSync(values.log, `${lines.join('\n')}\n`);
}

/** Gives the log to the ledger, line by line, and forgets it but for its end. */
function read(child, ledger) {
  let next = 0;
  let last = '';
  const take = () => {
    record(child.lines.slice(next));
    for (; next < child.lines.length; next++) ledger.read((last = child.lines[next]));
    if (child.lines.length > 2 * KEPT) next -= child.lines.splice(0, child.lines.length - KEPT).length;
  };
  const timer = setInterval(take, 50);
  return {
    stop: () => clearInterval(timer),
    hasRead: (pattern) => {
      take();
      return pattern.test(last);
    },
  };
}

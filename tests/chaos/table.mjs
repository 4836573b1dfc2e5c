// Adds up what runs have written with --json, as a table for the documentation:
//
//     node tests/chaos/table.mjs FILE...
//
// A run that found something wrong makes it end with 1.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Rows of the table: what each is called, and what it says of the sums of a kind. */
const n = (number) => number.toLocaleString('en');
const ROWS = [
  ['pieces, by seed', ({ pieces, seeds }) => `${pieces}: ${seeds}`],
  ['connections, of them WebSockets', ({ connections, websockets }) => `${n(connections)}, ${n(websockets)}`],
  ['workers killed', ({ kills }) => n(kills)],
  ['workers stopped, of them found hung, killed for it', ({ stops, hung, hangKills }) => `${n(stops)}, ${n(hung)}, ${n(hangKills)}`],
  ['masters killed', ({ masterDeaths }) => n(masterDeaths)],
  ['reloads, scales, drains', ({ reloads, scales, drains }) => `${n(reloads)}, ${n(scales)}, ${n(drains)}`],
  ['times without descriptors', ({ starvations }) => n(starvations)],
  ['broadcasts heard in rooms, of them from other workers', ({ roomMessages, fromOtherWorkers }) => `${n(roomMessages)}, ${n(fromOtherWorkers)}`],
  ['redelivered from dead workers, returned by workers without descriptors', ({ redelivered, returned }) => `${n(redelivered)}, ${n(returned)}`],
  ['served', ({ served }) => n(served)],
  ['asked to come again by a worker that was leaving (503 with `Retry-After`, or a close frame)', ({ sentAway }) => n(sentAway)],
  ['refused while the master had no descriptors', ({ refused }) => n(refused)],
  ['refused after `--hold-timeout`, since no worker had room', ({ refusedBusy }) => n(refusedBusy ?? 0)],
  ['lost with killed workers that had acknowledged them', ({ lostWithWorker }) => n(lostWithWorker)],
  ['lost with killed masters that had accepted them and not yet passed them on', ({ lostWithMaster }) => n(lostWithMaster)],
  ['ended by workers that exit with their master, as Node does without the preload', ({ endedWithMaster }) => n(endedWithMaster)],
  ['**failed though unacknowledged**', ({ wrong }) => `**${n(wrong)}**`],
];
const NAMES = { builtin: 'built-in workers', node: 'Node workers', 'node-channel': 'Node workers, `--no-preload`' };
/** What is not a number to be added up. */
const WORDS = ['kind', 'seed', 'rate', 'hangKill'];

/** What one run has found, in a sentence. */
export function sentence(sums) {
  const { kind, seed, hangKill } = sums;
  return `${kind} workers, seed ${seed}: ${sums.connections} connections (${sums.websockets} WebSockets) in ${sums.seconds} s, `
    + `${sums.kills} kills, ${sums.stops} stops (${sums.hung} found hung, ${sums.hangKills} killed for it${hangKill ? '' : ': off'}), `
    + `${sums.masterDeaths} deaths of the master, ${sums.reloads} reloads, ${sums.scales} scales, ${sums.drains} drains, `
    + `${sums.starvations} times no descriptors (${sums.passedOver} misfortunes could not happen); ${sums.roomMessages} broadcasts `
    + `heard, ${sums.fromOtherWorkers} of them from other workers; ${sums.redelivered} redelivered, ${sums.returned} returned; `
    + `${sums.served} served, ${sums.sentAway} asked by leaving workers to come again, ${sums.refused} refused while the master had `
    + `no descriptors, ${sums.refusedBusy} after waiting for a worker with room, ${sums.lostWithWorker} lost with workers that had acknowledged them, ${sums.lostWithMaster} lost with a master `
    + `that had just accepted them, ${sums.endedWithMaster} ended by workers that exit with their master; failed though `
    + `unacknowledged: ${sums.wrong}`;
}

function add(runs) {
  const total = { pieces: runs.length, seeds: runs.map(({ seed }) => seed).sort((one, other) => one - other).join(', ') };
  for (const run of runs) {
    for (const [name, value] of Object.entries(run)) if (!WORDS.includes(name)) total[name] = (total[name] ?? 0) + value;
  }
  return total;
}

function table(runs) {
  const kinds = Object.keys(NAMES).filter((kind) => runs.some((run) => run.kind === kind));
  const columns = kinds.map((kind) => add(runs.filter((run) => run.kind === kind)));
  if (kinds.length > 1) {
    kinds.push('all');
    columns.push({ ...add(runs), seeds: 'all' });
  }
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [
    line(['', ...kinds.map((kind) => NAMES[kind] ?? kind)]),
    line(['---', ...kinds.map(() => '---')]),
    ...ROWS.map(([name, say]) => line([name, ...columns.map(say)])),
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const lines = process.argv.slice(2).flatMap((file) => readFileSync(file, 'utf8').split('\n').filter(Boolean));
  const runs = lines.map((line) => JSON.parse(line));
  console.log(table(runs));
  process.exitCode = Number(runs.some(({ wrong }) => wrong > 0));
}

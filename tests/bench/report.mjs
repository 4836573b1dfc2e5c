// Makes tables and charts of what was measured: `node tests/bench/report.mjs RESULTS.json TABLES.md CHARTS_FOLDER`.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { bars, curves } from './lib/charts.mjs';
import { Contender, count, mebibytes, spread } from './lib/figures.mjs';
import { circumstances, full, goals, growth, short } from './lib/tables.mjs';

const [from, tables, folder] = process.argv.slice(2);
const results = JSON.parse(readFileSync(from, 'utf8'));
mkdirSync(folder, { recursive: true });
const { machine, settings } = results;
const rounds = settings.rounds === 1 ? 'one round' : `median of ${settings.rounds} rounds, with the least and the most`;
const place = `${machine.cpus} CPUs, ${settings.workers} workers, ${settings.clients} clients on the same machine; ${rounds}`;

if (results.kind === 'growth') reportGrowth(results.points);
else reportComparison(results.contenders.map((contender) => new Contender(contender)));

function reportComparison(contenders) {
  writeFileSync(tables, [
    '# The comparison', circumstances(results), '## In short', short(contenders), '## Goals', goals(contenders, results.wakeup_us),
    '## Everything', full(contenders), '',
  ].join('\n\n'));

  const groups = (figure, more = () => undefined) => [
    ['minimal', 'The same Rust worker behind each'], ['node', 'The same Node program behind each'],
  ].map(([worker, name]) => ({
    name,
    rows: contenders.filter((contender) => contender.worker === worker)
      .map((contender) => ({ label: contender.name, ours: contender.ours, figure: figure(contender), more: more(contender) }))
      .filter(({ figure: measured }) => measured),
  }));
  const held = count(Math.max(...contenders.flatMap((contender) => contender.rounds.map((round) => round.held ?? 0))));
  const chart = (name, text) => writeFileSync(join(folder, name), text);
  chart('cpu.svg', bars({
    title: 'CPU time of the balancer per connection',
    notes: ['One request a connection; less is better.', `${place}.`],
    unit: 'microseconds',
    groups: groups((contender) => contender.of('balancer_us')),
  }));
  chart('rate.svg', bars({
    title: 'Connections per second',
    notes: ['One request a connection; more is better.', `${place}.`],
    unit: 'connections per second',
    groups: groups((contender) => contender.of('rate')),
  }));
  chart('memory.svg', bars({
    title: `Memory of the balancer: no connection, then ${held} WebSockets`,
    notes: [`Resident (RSS) of all its processes; the paler end is what the WebSockets add; less is better.`, `${place}.`],
    unit: 'MiB',
    groups: groups((contender) => mebibytes(contender.of('rss_kib')), (contender) => mebibytes(contender.of('rss_held_kib'))),
  }));
}

function reportGrowth(points) {
  writeFileSync(tables, ['# Growth', circumstances(results), growth(points), ''].join('\n\n'));
  const panel = (by, axis) => ({
    axis,
    points: points.filter((point) => point.by === by)
      .map(({ at, rounds: measured }) => ({ at, figure: spread(measured.map((round) => round.balancer_us)) })),
  });
  writeFileSync(join(folder, 'growth.svg'), curves({
    title: "CPU time of haft's master per connection",
    notes: [`${machine.cpus} CPUs, clients on the same machine, ${settings.clients} of them where nothing else is said; ${rounds}.`],
    unit: 'microseconds',
    panels: [
      panel('workers', `workers, ${settings.clients} clients in all`),
      panel('load', `workers, ${settings.clients} clients for each`),
      panel('held', 'held WebSockets, 2 workers'),
    ],
  }));
}

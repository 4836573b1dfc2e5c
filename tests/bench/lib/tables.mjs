// The results as Markdown.

import { count, mebibytes, number, ratio, spread, together, told } from './figures.mjs';

const WORKERS = {
  minimal: 'The same minimal Rust worker behind each',
  builtin: "haft's built-in Socket.IO worker",
  node: 'The same unmodified Socket.IO program of Node behind each',
  deno: 'The same program, run by Deno',
  bun: 'The same program, run by Bun',
};

function table(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(head), `|${head.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n');
}

/** The machine and its noise, in a paragraph. */
export function circumstances({ machine, noise, settings, syscalls_by, no_syscalls }) {
  const times = spread(noise.calibration_ms);
  const counted = no_syscalls ? ` System calls could not be counted: ${no_syscalls}.` : '';
  return [
    `${machine.haft}; Linux ${machine.kernel}, ${machine.cpus} CPUs (${machine.model}); Node ${machine.node}, `
      + `${machine.nginx.replace('nginx version: ', '')}, ${machine.haproxy.split(' ').slice(0, 3).join(' ')}.`,
    `${settings.workers} workers, ${settings.clients} clients at once on ${settings.threads} threads of the same machine, each `
      + `connection from a loopback address of its own. Rounds, in turns: ${settings.rounds}, of `
      + `${count(settings.connections)} connections each; ${settings.seconds} s in all. Median (least to most).`,
    `Noise: a computation of always the same length took ${told(times)} ms; load average before the run `
      + `${noise.load_average_before.toFixed(1)}; ${(noise.stolen_share * 100).toFixed(1)} % of the CPU time was taken by `
      + `the machine's host.${syscalls_by ? ` System calls counted by ${syscalls_by}.` : ''}${counted}`,
  ].join('\n\n');
}

/** What the documentation shows: one row each, few columns. */
export function short(contenders) {
  const rows = contenders.filter(({ rounds }) => rounds.length > 0).map((contender) => {
    const [before, held] = ['rss_kib', 'rss_held_kib'].map((name) => mebibytes(contender.of(name)));
    return [
      `${contender.ours ? `**${contender.name}**` : contender.name}, ${contender.worker}`,
      told(contender.of('balancer_us')),
      told(contender.of(together)),
      told(contender.of('rate')),
      told(contender.of('p50_1_us')),
      before ? `${number(before.median)}, ${number(held.median)}` : '-',
    ];
  });
  const held = count(Math.max(...contenders.flatMap(({ rounds }) => rounds.map((round) => round.held ?? 0))));
  const head = ['who distributes, to which workers', 'its CPU per connection, us', 'with the workers, us', 'connections/s',
    'p50 at one client, us', `its memory, MiB, with 0 and ${held} WebSockets`];
  return table(head, rows);
}

const COLUMNS = {
  'What a connection costs, in us of CPU': [
    ['balancer, 64 clients', 'balancer_us'], ['workers', 'workers_us'], ['both', together],
    ['balancer, one client', 'balancer_1_us'], ['system calls of the balancer', 'syscalls'],
  ],
  'How fast it is: connections/s, and us from connect to the first byte': [
    ['64 clients: connections/s', 'rate'], ['p50', 'p50_us'], ['p99', 'p99_us'],
    ['one client: connections/s', 'rate_1'], ['p50', 'p50_1_us'], ['p99', 'p99_1_us'],
  ],
  'Connections that wait in the kernel\'s queue when the balancer begins, in us of CPU each': [
    ['how many', 'waiting'], ['balancer', 'waiting_balancer_us'], ['workers', 'waiting_workers_us'],
    ['not served', 'waiting_lost'],
  ],
  'Memory of the balancer, in KiB, and held WebSockets': [
    ['RSS', 'rss_kib'], ['RSS with them', 'rss_held_kib'], ['PSS', 'pss_kib'], ['PSS with them', 'pss_held_kib'],
    ['how many', 'held'], ['bytes of RSS each', (round) => ((round.rss_held_kib - round.rss_kib) * 1024) / round.held],
    ['had to come again', 'held_lost'],
  ],
  'Sessions of Socket.IO, 64 clients: handshake, upgrade to WebSocket, one message with its answer, end': [
    ['sessions/s', 'session_rate'], ['p50, us', 'session_p50_us'], ['balancer, us of CPU each', 'session_balancer_us'],
    ['workers', 'session_workers_us'], ['did not come about', 'session_lost'],
  ],
  'Established WebSockets: 64, each with one question at a time': [
    ['answers/s', 'echo_rate'], ['p50, us', 'echo_p50_us'], ['p99, us', 'echo_p99_us'],
    ['balancer, us of CPU each', 'echo_balancer_us'],
  ],
};

/** Everything that was measured. */
export function full(contenders) {
  const parts = [];
  for (const [title, columns] of Object.entries(COLUMNS)) {
    parts.push(`### ${title}`);
    for (const [worker, what] of Object.entries(WORKERS)) {
      const rows = contenders.filter((contender) => contender.worker === worker).map((contender) => [
        contender.name,
        ...(contender.rounds.length ? columns.map(([, figure]) => told(contender.of(figure))) : absence(contender, columns)),
      ]);
      if (rows.length) parts.push(table([what, ...columns.map(([head]) => head)], rows));
    }
  }
  return parts.join('\n\n');
}

function absence({ absent }, columns) {
  return [absent ? `not available: ${absent}` : 'could not be measured', ...Array(columns.length - 1).fill('')];
}

const KIB_8_MIB = 8192;

/** What haft is to reach: `[what, how it is measured, least, most]`, where what is measured comes of `get(key)`. */
const GOALS = [
  ['Node: CPU of master and workers / a port for each process', (get) => ratio(get('node-haft'), get('node-clients'), together), 0, 1.1],
  ['Node: CPU of master and workers / nginx stream', (get) => ratio(get('node-haft'), get('node-nginx-stream'), together), 0, 0.8],
  ['Node: CPU with --affinity session minus that with address affinity, us', (get) => difference(get('node-haft-session'), get('node-haft'), together), -Infinity, 3],
  ["master's CPU / HAProxy tcp", (get) => ratio(get('minimal-haft'), get('minimal-haproxy'), 'balancer_us'), 0, 0.1],
  ["master's CPU with built-in workers / HAProxy tcp", (get) => ratio(get('builtin-haft'), get('minimal-haproxy'), 'balancer_us'), 0, 0.1],
  ["master's CPU with connections waiting, us", (get) => get('minimal-haft').of('waiting_balancer_us'), 0, 3.5],
  ['p50 at one client minus that of SO_REUSEPORT, us', (get) => difference(get('minimal-haft'), get('minimal-reuseport'), 'p50_1_us'), -Infinity, 25],
  // What was reached before, and is to stay.
  ['p50 at one client minus that of SO_REUSEPORT with --busy-poll 500us, us', (get) => difference(get('minimal-haft-awake'), get('minimal-reuseport'), 'p50_1_us'), -Infinity, 12],
  ["master's CPU / nginx stream", (get) => ratio(get('minimal-haft'), get('minimal-nginx-stream'), 'balancer_us'), 0, 1 / 8],
  ["Node: master's CPU / Node cluster", (get) => ratio(get('node-haft'), get('node-cluster'), 'balancer_us'), 0, 1 / 5],
  ["Node: master's CPU / sticky-session", (get) => ratio(get('node-haft'), get('node-sticky-session'), 'balancer_us'), 0, 1 / 9],
  ["Node: master's CPU / @socket.io/sticky", (get) => ratio(get('node-haft'), get('node-socketio-sticky'), 'balancer_us'), 0, 1 / 14],
  ["kernel dispatch: master's CPU, us", (get) => get('minimal-haft-kernel').of('balancer_us'), 0, 0.05],
  ['kernel dispatch, Node: connections/s / Node cluster', (get) => ratio(get('node-haft-kernel'), get('node-cluster'), 'rate'), 1.9, Infinity],
  ['kernel dispatch, Node: connections/s / HAProxy tcp', (get) => ratio(get('node-haft-kernel'), get('node-haproxy'), 'rate'), 1.4, Infinity],
  ['CPU of master and workers / SO_REUSEPORT', (get) => ratio(get('minimal-haft'), get('minimal-reuseport'), together), 0, 1.15],
  ['connections/s / SO_REUSEPORT', (get) => ratio(get('minimal-haft'), get('minimal-reuseport'), 'rate'), 0.95, Infinity],
  ["master's RSS, KiB", (get) => get('builtin-haft').of('rss_kib'), 0, KIB_8_MIB],
  ["master's RSS for a held WebSocket, bytes", (get) => get('builtin-haft').of((round) => ((round.rss_held_kib - round.rss_kib) * 1024) / round.held), -Infinity, 1],
  ['echo rate / SO_REUSEPORT', (get) => ratio(get('minimal-haft'), get('minimal-reuseport'), 'echo_rate'), 0.97, 1.03],
  ['Node: echo rate / no balancer', (get) => ratio(get('node-haft'), get('node-clients'), 'echo_rate'), 0.97, 1.03],
];

function difference(one, other, figure) {
  const of = (round) => (typeof figure === 'function' ? figure(round) : round[figure]);
  const values = one.rounds.map((round, index) => (other.rounds[index] ? of(round) - of(other.rounds[index]) : NaN));
  return spread(values);
}

/** What haft is to reach, and what it reached here; `wakeups` are the microseconds that one across CPUs takes alone. */
export function goals(contenders, wakeups) {
  const get = (key) => contenders.find((contender) => contender.key === key) ?? { rounds: [], of: () => undefined };
  const alone = spread(wakeups);
  return [
    judged(GOALS.map(([what, measure, least, most]) => [what, measure(get), least, most])),
    `To wake a process on another CPU, and nothing else, takes ${told(alone)} us here. A connection that is handed over wakes one `
      + 'process more than one that its worker accepts.',
  ].join('\n\n');
}

/** A table of `[what, figure, least, most]`. */
function judged(goals) {
  const rows = goals.map(([what, figure, least, most]) => {
    const bound = [least > 0 && `at least ${number(least)}`, most < Infinity && `at most ${number(most)}`].filter(Boolean).join(', ');
    const reached = !figure ? 'not measured' : figure.median >= least && figure.median <= most ? 'yes' : '**no**';
    return [what, bound, told(figure), reached];
  });
  return table(['what', 'goal', 'here', 'reached'], rows);
}

/** The master's cost by number of workers and of held connections. */
export function growth(points) {
  const rows = points.map(({ by, at, clients, rounds }) => {
    const of = (name) => told(spread(rounds.map((round) => round[name])));
    const what = by === 'held' ? `${count(at)} held WebSockets, 2 workers` : `${at} worker${at === 1 ? '' : 's'}, ${count(clients)} clients`;
    return [what, of('balancer_us'), of('workers_us'), of('rate'), of('rss_kib')];
  });
  const cpu = (workers) => points.find(({ by, at }) => by === 'load' && at === workers)?.rounds;
  const [one, many] = [cpu(1), cpu(64)];
  const grown = one && many && spread(many.map((round, index) => round.balancer_us / one[index].balancer_us));
  return [
    table(['', "master's CPU per connection, us", 'workers, us', 'connections/s', "master's RSS, KiB"], rows),
    judged([["master's CPU with 64 workers / with 1, as many clients each", grown, 0, 1.4]]),
  ].join('\n\n');
}

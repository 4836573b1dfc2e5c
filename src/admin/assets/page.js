// The page: rows, charts and events of a running haft, each second.
import { change, lines, unlock } from '/control.js';
import { Spark, write } from '/draw.js';
import { make } from '/make.js';
import { Model, age, bytes } from '/figures.js';

const $ = (id) => document.getElementById(id);
const model = new Model();
const dash = (value, text = String) => (value === null || value === undefined ? '–' : text(value));
const decimal = (value) => value.toFixed(1);
const count = (value) => Math.round(value).toLocaleString('en');

/* ---- the table ---- */

/** Heading, what is written, by what is sorted, a class, and what it means. */
const COLUMNS = [
  ['Slot', (row) => row.slot.slot, (row) => row.slot.slot, 'number', 'the stable place that clients stick to'],
  ['State', (row) => row.condition, (row) => row.condition, 'state', 'where its worker is in its life'],
  ['PID', (row) => dash(row.slot.pid), (row) => row.slot.pid, 'number quiet', 'the worker’s process'],
  ['Up', (row) => age(row.slot.uptime_seconds), (row) => row.slot.uptime_seconds, 'number quiet', 'how long the worker has been running'],
  ['CPU', (row) => dash(row.cpu, (cpu) => `${decimal(cpu)} %`), (row) => row.cpu, 'number', 'of one CPU'],
  ['Memory', (row) => dash(row.memory, bytes), (row) => row.memory, 'number', 'resident'],
  ['Loop', (row) => dash(row.delay, (delay) => `${decimal(delay)} ms`), (row) => row.delay, 'number loop', 'event-loop delay, 99th percentile'],
  ['Conn', (row) => dash(row.connections, count), (row) => row.connections, 'number', 'open connections'],
  ['Sess', (row) => dash(row.sessions, count), (row) => row.sessions, 'number', 'sessions'],
  ['Rate', (row) => decimal(row.rate), (row) => row.rate, 'number', 'connections a second'],
  ['Pending', (row) => row.pending, (row) => row.pending, 'number', 'in flight and held'],
  ['Restarts', (row) => row.restarts, (row) => row.restarts, 'number', 'workers that no operator asked for'],
  ['Gen', (row) => row.slot.generation, (row) => row.slot.generation, 'number quiet', 'how many reloads came before its worker'],
  ['Last exit', (row) => row.exit, (row) => row.exit, 'exit quiet', 'how its last worker ended'],
];

let sort = { column: 0, descending: false };

function headings() {
  $('headings').append(...COLUMNS.map(([name, , , className, meaning], at) => {
    const button = make('button', { type: 'button', text: name, title: meaning });
    button.addEventListener('click', () => {
      // Numbers are most often sought at their largest.
      const first = at > 0 && COLUMNS[at][3].includes('number');
      sort = { column: at, descending: sort.column === at ? !sort.descending : first };
      draw();
    });
    return make('th', { scope: 'col', className }, button);
  }));
}

function newRow(slot) {
  const cells = COLUMNS.map(([name, , , className]) => make('td', { className, 'data-name': name }));
  const open = make('button', { type: 'button', className: 'open' });
  cells[0].append(open);
  const node = make('tr', {}, ...cells);
  node.addEventListener('click', () => show(slot));
  return { node, cells, open };
}

const drawn = new Map();

function table() {
  const shown = model.shown($('filter').value, COLUMNS[sort.column][2], sort.descending);
  const nodes = shown.map((row) => {
    const slot = row.slot.slot;
    if (!drawn.has(slot)) drawn.set(slot, newRow(slot));
    const { node, cells, open } = drawn.get(slot);
    node.dataset.mood = row.mood;
    node.classList.toggle('late', (row.delay ?? 0) >= 100);
    cells.forEach((cell, at) => write(at ? cell : open, COLUMNS[at][1](row)));
    open.setAttribute('aria-label', `Slot ${slot} alone`);
    return node;
  });
  for (const slot of drawn.keys()) {
    if (!model.rows.some((row) => row.slot.slot === slot)) drawn.delete(slot);
  }
  // Moved only if the order is another one: a button keeps its focus.
  const rows = $('rows');
  if (nodes.length !== rows.children.length || nodes.some((node, at) => rows.children[at] !== node)) rows.replaceChildren(...nodes);
  [...$('headings').children].forEach((heading, at) => {
    heading.setAttribute('aria-sort', at !== sort.column ? 'none' : sort.descending ? 'descending' : 'ascending');
  });
  $('none').hidden = shown.length > 0;
}

/* ---- the totals ---- */

const TILES = [
  ['rate', 'Connections/s', decimal, 5],
  ['open', 'Open connections', count, 5],
  ['cpu', 'Workers’ CPU', (value) => `${decimal(value)} %`, 20],
  ['delay', 'Slowest loop', (value) => `${decimal(value)} ms`, 20],
].map(([name, title, text, least]) => {
  const [value, more, spark] = [make('strong', { text: '–' }), make('span', { className: 'quiet' }), new Spark(title)];
  const node = make('div', { className: 'card tile' }, make('h2', { text: title }), make('p', {}, value, more), spark.node);
  $('tiles').append(node);
  return { name, text, least, value, more, spark };
});

function totals() {
  const { status, rows } = model;
  const slowest = rows.reduce((most, row) => ((row.delay ?? 0) > (most?.delay ?? 0) ? row : most), null);
  const more = {
    rate: `${count(status.accepted)} accepted`,
    open: `${count(status.in_flight)} in flight, ${count(status.held)} held`,
    cpu: status.process ? `master ${bytes(status.process.resident_bytes)}, ${decimal(status.process.cpu_seconds)} s CPU` : '',
    delay: slowest ? `slot ${slowest.slot.slot}, 99th percentile` : '',
  };
  for (const { name, text, least, value, more: beside, spark } of TILES) {
    const looks = model.totals[name];
    write(value, looks.length ? text(looks.at(-1)) : '–');
    write(beside, more[name]);
    spark.draw(looks, least);
  }
}

/* ---- what is wrong, and what happened ---- */

let answered = null; // haft's answer to the last change

function notices() {
  const alarms = (model.status.alarms ?? []).filter(({ active }) => active).map(({ line }) => ['bad', line]);
  const note = model.status.note ? [['warn', model.status.note]] : [];
  const wanted = [...(answered ? [answered] : []), ...alarms, ...note];
  const key = JSON.stringify(wanted);
  if ($('notices').dataset.key === key) return;
  $('notices').dataset.key = key;
  $('notices').replaceChildren(...wanted.map(([kind, text]) => make('p', { className: 'notice', 'data-kind': kind, text })));
}

function refused() {
  const some = Object.entries(model.status.refused).filter(([, number]) => number > 0);
  const key = JSON.stringify(some);
  if ($('refused').dataset.key === key) return;
  $('refused').dataset.key = key;
  const item = ([reason, number]) => make('div', {}, make('dt', { text: reason.replaceAll('_', ' ') }), make('dd', { text: count(number) }));
  $('refused').replaceChildren(...(some.length ? some.map(item) : [make('p', { className: 'quiet', text: 'No connection was refused.' })]));
}

function events() {
  const newest = model.events[0];
  const key = newest ? `${newest.unix} ${newest.text} ${model.events.length}` : '';
  if ($('events').dataset.key === key) return;
  $('events').dataset.key = key;
  const item = ({ unix, kind, text }) => {
    const when = new Date(unix);
    return make('li', { 'data-kind': kind },
      make('time', { text: when.toLocaleTimeString([], { hour12: false }), datetime: when.toISOString() }), make('strong', { text }));
  };
  const none = make('li', { className: 'quiet', text: 'Nothing has happened since this page was opened.' });
  $('events').replaceChildren(...(model.events.length ? model.events.map(item) : [none]));
}

function progress() {
  const far = model.progress();
  $('progress').hidden = !far;
  if (!far) return;
  [$('progress-bar').value, $('progress-bar').max] = far;
  write($('progress-text'), `Reload: ${far[0]} of ${far[1]} slots`);
}

/* ---- a slot alone ---- */

let alone = null; // the slot
const charts = [['rate', 'Connections/s', 5], ['cpu', 'CPU', 20], ['delay', 'Loop delay', 20], ['memory', 'Memory', 2 ** 25]].map(
  ([name, title, least]) => {
    const [value, spark] = [make('strong'), new Spark(title)];
    $('detail-charts').append(make('div', {}, make('h3', { text: title }), value, spark.node));
    return { name, least, value, spark };
  });
const inWords = { rate: decimal, cpu: (cpu) => `${decimal(cpu)} %`, delay: (delay) => `${decimal(delay)} ms`, memory: bytes };

function show(slot) {
  alone = slot;
  write($('detail-lines'), '');
  detail();
  $('detail').showModal();
  lines(slot).then((text) => write($('detail-lines'), text));
}

function detail() {
  const row = model.rows.find((row) => row.slot.slot === alone);
  if (!row) return $('detail').close();
  const { slot } = row;
  write($('detail-title'), `Slot ${slot.slot}: ${row.condition}`);
  write($('detail-lines-title'), `Last lines of its workers${model.status.keeps_stdout === false ? ' (standard error)' : ''}`);
  const series = model.series.get(alone);
  for (const { name, least, value, spark } of charts) {
    write(value, dash(row[name], inWords[name]));
    spark.draw(series?.[name] ?? [], least);
  }
  const spoken = (name, value) => (name.startsWith('loop_delay') ? `${decimal(value / 1e6)} ms` : /^(heap|bytes)_/.test(name) ? bytes(value) : count(value));
  // What has never happened is left out.
  const isWorthIt = ([name, value]) => name !== 'age_seconds' && (value > 0 || !/^(closed|refused|lost)_/.test(name));
  const reported = Object.entries(slot.reported ?? {}).filter(isWorthIt).map(([name, value]) => [name.replaceAll('_', ' '), spoken(name, value)]);
  const figures = [
    ['worker', slot.worker], ['pid', dash(slot.pid)], ['generation', slot.generation], ['delivered', count(slot.delivered)],
    ['memory', dash(row.memory, bytes)], ['threads', dash(slot.process?.threads)], ['descriptors', dash(slot.process?.descriptors)],
    ['last exit', row.exit || '–'], ...reported,
  ];
  $('detail-figures').replaceChildren(...figures.map(([name, value]) => make('div', {}, make('dt', { text: name }), make('dd', { text: value }))));
  const drain = slot.drained
    ? ['Undrain', `/undrain?slot=${alone}`, `Give slot ${alone} connections again?`, '']
    : ['Drain', `/drain?slot=${alone}`, `Drain slot ${alone}?`, 'It gets no new connections; those that it has stay.'];
  const restart = ['Restart', `/restart?slot=${alone}`, `Give slot ${alone} a new worker?`, 'The old one goes on until the new one is ready.'];
  const key = `${alone} ${slot.drained}`;
  if ($('detail-actions').dataset.key === key) return;
  $('detail-actions').dataset.key = key;
  $('detail-actions').replaceChildren(...[drain, restart].map(([text, ...wish]) => {
    const button = make('button', { type: 'button', className: 'plain', text });
    button.addEventListener('click', () => wanted(...wish));
    return button;
  }));
}

$('detail').addEventListener('close', () => { alone = null; });
$('detail-close').addEventListener('click', () => $('detail').close());

/* ---- control ---- */

async function wanted(path, question, more) {
  const answer = await change(path, question, more);
  if (!answer) return;
  answered = answer;
  if (alone !== null && answer[0] === 'bad') $('detail').close();
  notices();
}

$('reload').addEventListener('click', () =>
  wanted('/reload', 'Reload?', 'New workers in all slots, one after another; the old ones finish what they have.'));
for (const [id, step] of [['more', 1], ['fewer', -1]]) {
  $(id).addEventListener('click', () => {
    const slots = model.status.slots.length + step;
    wanted(`/scale?workers=${slots}`, `Have ${slots} slots from now on?`, 'Clients move only where they must.');
  });
}
$('unlock').addEventListener('click', unlock);
$('filter').addEventListener('input', () => model.status && table());

/* ---- the stream ---- */

function draw() {
  const { status } = model;
  write($('name'), status.name);
  write($('version'), status.version);
  write($('about'), `pid ${status.pid} · up ${age(status.uptime_seconds)} · ${status.listen.join(' ')} · ${status.affinity} by ${status.dispatch}`);
  write($('count'), `${status.slots.length} slot${status.slots.length === 1 ? '' : 's'}`);
  document.title = `${status.name}: haft`;
  $('reload').disabled = status.stopping;
  $('more').disabled = status.stopping;
  $('fewer').disabled = status.stopping || status.slots.length < 2;
  for (const part of [table, totals, notices, refused, events, progress]) part();
  if (alone !== null) detail();
}

function state(name, text) {
  $('state').dataset.state = name;
  write($('state-text'), text);
}

function listen() {
  const source = new EventSource('/events');
  source.addEventListener('message', ({ data }) => {
    model.take(JSON.parse(data), performance.now(), Date.now());
    state(model.status.stopping ? 'waiting' : 'up', model.status.stopping ? 'stopping' : 'live');
    draw();
  });
  source.addEventListener('silent', ({ data }) => state('waiting', data));
  source.addEventListener('displaced', () => {
    source.close();
    state('down', 'paused: other windows have taken over, reload this one to go on');
  });
  source.addEventListener('error', () => {
    state('down', 'no answer, trying again');
    // A browser tries again by itself unless the answer was no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  });
}

headings();
listen();

// Programs written for a package that passes connections between processes: their worker's side runs unchanged.

import assert from 'node:assert/strict';

import { assertAllStuck, crowd, workers } from './lib/crowd.mjs';
import { fetchText } from './lib/fetch.mjs';
import { file } from './lib/files.mjs';
import { Haft } from './lib/haft.mjs';
import { homes, opened } from './lib/home.mjs';
import { beside } from './lib/program.mjs';

const SERVER = file('node-style-server.cjs');

/** The program, and the style that it is for. */
const STYLES = [
  ['classic', 'classic'],
  ['sticky-session', 'sticky-session'],
  ['sticky-cluster', 'sticky-cluster'],
  ['sticky-listen', 'sticky-listen'],
  ['socketio-sticky-session', 'classic'],
  ['socket.io-sticky-2', 'socket.io-sticky'],
  ['socket.io-sticky-1', 'socket.io-sticky'],
  ['own', '{"take":["this"]}'],
];

for (const [name, style] of STYLES) {
  beside(`${name}, as --node-style ${style}`, (place) => stuck(place, '--node-style', style, '--', 'node', SERVER, name));
}

// Both have a server of their own, so that haft can do without messages.
for (const name of ['classic', 'sticky-cluster']) {
  beside(`${name}, without --node-style`, (place) => stuck(place, '--', 'node', SERVER, name));
}

beside('a program that says when it is ready is not sent anything before', async (place) => {
  const late = file('node-late-server.mjs');
  const haft = await place.haft('-w', '4', '--wait-ready', '--node-style', 'classic', '--', 'node', late);
  await haft.child.heard(/takes connections$/, 4);
  await serves(place, haft);
});

beside('a program that is slow to start loses none of the clients that came before it was ready', async (place) => {
  const slow = file('node-slow-server.mjs');
  const haft = new Haft(place, ['-w', '2', '--node-style', 'classic', '--hold-timeout', '30s', '--', 'node', slow, '2500']);
  const [[, address]] = await haft.child.heard(/\blistening on http:\/\/(\S+:\d+)/);
  const all = homes(40);
  const ask = async () => {
    const answers = await Promise.all(all.map((home) => fetchText(`http://${address}/haft/page.json`, home)));
    const pids = new Set(answers.map((answer) => JSON.parse(answer).worker.pid));
    assert.equal(pids.size, 2, 'both workers have clients');
    return pids;
  };
  const early = ask();
  await haft.ready();
  // Again for clients that come while the replacements start.
  for (const pid of await early) process.kill(pid, 'SIGKILL');
  const late = ask();
  await haft.child.heard(/replacing it/, 2);
  await late;
  const ledger = await haft.settled(() => opened(all));
  assert.equal(ledger.refused, 0, 'none was refused');
  await haft.child.heard(/takes the connections of \S+ by message/);
  await haft.stop();
});

beside('a program without a server: the log names the style to try', async (place) => {
  const { child } = new Haft(place, ['-w', '2', '--start-timeout', '3s', '--', 'node', SERVER, 'sticky-session']);
  await child.heard(/--node-style/);
});

async function stuck(place, ...flags) {
  await serves(place, await place.haft('-w', '4', ...flags));
}

async function serves(place, haft) {
  const all = await crowd(place, haft.url, { addresses: 30, each: 2 });
  await assertAllStuck(all);
  const { homes, members } = all;
  assert.ok(workers(members).length > 1, 'more than one worker has clients');
  members.forEach(({ client }) => client.close());
  const ledger = await haft.settled(() => opened(homes));
  assert.equal(ledger.refused, 0, 'none was refused');
  assert.equal(ledger.respawned, 0, 'no worker died');
  await haft.stop();
}

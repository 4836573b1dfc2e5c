// The end of a Node worker as its clients see it: one by one where it is drained, and not at all for a while where the
// master has died.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { WebSocket } from 'ws';

import { file } from './lib/files.mjs';
import { alive } from './lib/haft.mjs';
import { homes } from './lib/home.mjs';
import { versions } from './lib/node-versions.mjs';
import { beside } from './lib/program.mjs';
import { inTurns, until, within } from './lib/wait.mjs';

const HELD = 100;

const newest = versions.at(-1).name;
const FLAGS = { classic: ['--node-style', 'classic', '--wait-ready'], kernel: ['--dispatch', 'kernel'] };

for (const { name, path } of versions) {
  for (const style of name === newest ? ['cluster', 'classic', 'kernel'] : ['cluster', 'classic']) {
    beside(`${name}, style ${style}: 100 WebSockets live on when the master is killed, and the next one binds at once`, async (place) => {
      const note = join(place.folder, 'note');
      const flags = FLAGS[style] ?? [];
      const command = [path, file('node-parting-server.cjs'), note, 'noisy'];
      if (style === 'classic') command.push('message=sticky-session:connection');
      if (style === 'kernel') command.push('any');
      const start = (...more) => place.haft('-w', '2', '--drain-timeout', '45s', ...more, ...flags, '--', ...command);
      const before = await start();
      const held = await hold(place, before);
      await before.status();
      const killed = Date.now();
      await before.child.end('SIGKILL');
      const after = await start('-l', before.address);
      assert.deepEqual(await errorsOf(note), []);
      await inTurns(held, 20, (one) => one.echoes());
      const later = await place.client(after.url, homes(1)[0], { transports: ['websocket'] }).connected();
      assert.ok(after.workers.has((await later.hello()).pid), 'served by a new worker');

      await until('all to be told', () => held.every((one) => one.isOver()), { within: 90_000 });
      const orphans = [...before.workers];
      await until('the end of the old workers', () => !orphans.some(alive), { within: 60_000 });
      const ends = notes(note).filter(({ pid }) => orphans.includes(pid));
      assert.deepEqual(ends.filter(({ exit }) => exit !== undefined).map(({ exit }) => exit), [0, 0]);
      assert.deepEqual(ends.filter(({ error }) => error), []);
      const told = ends.filter(({ ended }) => ended);
      assert.equal(told.length, HELD);
      assert.ok(told.every(({ at }) => at >= killed + 22_500), 'they are left alone for half of the drain time');
      assertApart(told, { over: 18_000 });
      for (const one of held) one.assertTold();
      assert.equal(later.disconnects.length, 0);
      await after.stop();
    });
  }
}

beside('with --no-preload the workers end with the master, as they do with that of Node', async (place) => {
  const note = join(place.folder, 'note');
  const command = ['--no-preload', '--', 'node', file('node-parting-server.cjs'), note];
  const haft = await place.haft('-w', '2', '--drain-timeout', '60s', ...command);
  await hold(place, haft, 10);
  await haft.status();
  await haft.child.end('SIGKILL');
  await until('the end of the workers', () => ![...haft.workers].some(alive));
});

beside('a worker that was draining when the master died finishes what it has, and ends', async (place) => {
  const note = join(place.folder, 'note');
  const haft = await place.haft('-w', '1', '--drain-timeout', '6s', '--', 'node', file('node-parting-server.cjs'), note);
  const held = await hold(place, haft, 10);
  await haft.status();
  const old = [...haft.workers];
  await haft.post('/reload');
  await until('the new worker', async () => (await haft.status()).reload.state === 'done');
  await haft.child.end('SIGKILL');
  await until('all to be told', () => held.every((one) => one.isOver()), { within: 60_000 });
  for (const one of held) one.assertTold();
  await until('the end of all workers', () => ![...haft.workers].some(alive), { within: 60_000 });
  assert.deepEqual(notes(note).filter(({ pid, error }) => old.includes(pid) && error), []);
});

for (const { name, path } of versions) {
  beside(`${name}: a reload ends the WebSockets of a worker one by one`, async (place) => {
    const note = join(place.folder, 'note');
    const command = [path, file('node-parting-server.cjs'), note];
    const haft = await place.haft('-w', '2', '--drain-timeout', '10s', '--', ...command);
    const held = await hold(place, haft);
    await haft.status();
    const old = [...haft.workers];
    await haft.post('/reload');
    await until('all to be told', () => held.every((one) => one.isOver()), { within: 60_000 });
    await until('the end of the old workers', () => !old.some(alive), { within: 60_000 });
    const told = notes(note).filter(({ pid, ended }) => ended && old.includes(pid));
    assert.equal(told.length, HELD);
    assertApart(told, { over: 8000 });
    for (const one of held) one.assertTold();
    assert.deepEqual(await errorsOf(note), []);
    assert.ok(!haft.child.lines.some((line) => /worker died/.test(line)));
    await haft.stop();
  });
}

/** Half of the clients are Socket.IO's, half plain WebSockets. */
async function hold(place, haft, count = HELD) {
  return inTurns(homes(count), 20, async (home, index) => {
    return index % 2 === 0 ? Session.open(place, haft, home) : Plain.open(place, haft, home);
  });
}

class Session {
  static async open(place, haft, home) {
    const options = { transports: ['websocket'], reconnection: false };
    return Object.assign(new Session(), { client: await place.client(haft.url, home, options).connected() });
  }

  async echoes() {
    assert.deepEqual(await this.client.ask('echo', 'a word'), ['a word']);
  }

  isOver() {
    return this.client.disconnects.length > 0;
  }

  assertTold() {
    assert.deepEqual([this.client.disconnects, this.client.errors], [['transport close'], []]);
  }
}

class Plain {
  static async open(place, haft, home) {
    const plain = new Plain();
    plain.socket = new WebSocket(`ws://${haft.address}/plain`, { localAddress: home.address });
    plain.socket.on('close', (code) => (plain.code = code));
    place.atEnd(() => plain.socket.terminate());
    await within(60_000, 'a WebSocket', new Promise((done, failed) => plain.socket.once('open', done).once('error', failed)));
    return plain;
  }

  async echoes() {
    const answer = new Promise((done) => this.socket.once('message', (data) => done(`${data}`)));
    this.socket.send('a word');
    assert.equal(await within(60_000, 'an echo', answer), 'a word');
  }

  isOver() {
    return this.code !== undefined;
  }

  assertTold() {
    assert.equal(this.code, 1012);
  }
}

/**
 * The ends are spread over most of the time `over` that there was for them. Nothing is said of the moment of each: on a
 * machine that is busy many may come late at once.
 */
function assertApart(told, { over }) {
  const moments = told.map(({ at }) => at).sort((one, other) => one - other);
  const middle = moments.slice(moments.length / 10, -moments.length / 10);
  assert.ok(middle.at(-1) - middle[0] > over / 2, `${middle.at(-1) - middle[0]} ms`);
}

function notes(note) {
  if (!existsSync(note)) return [];
  return readFileSync(note, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
}

async function errorsOf(note) {
  return notes(note).filter(({ error }) => error);
}

// Node programs that handle SIGTERM themselves, or use a package for that: whatever a worker has to end for, its handler
// runs and has its time, its requests are answered, and nothing fails.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';

import { file } from './lib/files.mjs';
import { alive } from './lib/haft.mjs';
import { versions } from './lib/node-versions.mjs';
import { beside } from './lib/program.mjs';
import { until, within } from './lib/wait.mjs';

const KINDS = ['work', 'once', 'careful', 'terminus', 'http-terminator', 'fastify'];
const newest = versions.at(-1);

// What differs among versions differs between the oldest and the newest; each takes a while.
for (const { name, path } of [versions[0], newest]) {
  for (const kind of KINDS) {
    // Fastify 5 needs Node 20.
    if (kind === 'fastify' && name === 'Node 18') continue;
    beside(`${name}, ${kind}: its handler runs in a reload, where workers become fewer, and at a stop`, async (place) => {
      const handlers = await Handlers.start(place, path, kind, '-w', '2', '--drain-timeout', '30s');
      const all = (slots) => slots;
      await handlers.end(all, () => handlers.haft.post('/reload'));
      await handlers.end(([, last]) => [last], () => handlers.haft.post('/scale?workers=1'));
      await handlers.end(all, () => handlers.haft.child.process.kill('SIGTERM'));
      assert.deepEqual(await until('the end of haft', () => handlers.haft.child.how), { code: 0, signal: null });
    });
  }
}

// One that only does its work and exits takes its requests with it.
for (const kind of KINDS.filter((kind) => kind !== 'work')) {
  beside(`${kind}: at a stop the signal comes at once, and a request that lasts is answered`, async (place) => {
    const handlers = await Handlers.start(place, newest.path, kind, '-w', '1', '--drain-timeout', '60s');
    const [old] = handlers.haft.workers;
    const held = handlers.ask('/held');
    await handlers.delivered(1);
    handlers.haft.child.process.kill('SIGTERM');
    // Terminus calls what it is given when its server has closed.
    if (kind !== 'terminus') await handlers.begun(old);
    handlers.open();
    assert.equal(await held, String(old));
    await handlers.ended([old]);
    assert.deepEqual(await until('the end of haft', () => handlers.haft.child.how), { code: 0, signal: null });
  });
}

beside('in a reload the signal comes when a fifth of the time is left, if requests last as long', async (place) => {
  const handlers = await Handlers.start(place, newest.path, 'once', '-w', '1', '--drain-timeout', '20s');
  const [old] = handlers.haft.workers;
  const held = handlers.ask('/held');
  await handlers.delivered(1);
  await handlers.haft.post('/reload');
  await handlers.begun(old);
  handlers.open();
  assert.equal(await held, String(old));
  await handlers.ended([old]);
  const [began] = handlers.notes().filter(({ pid, began }) => began && pid === old);
  assert.ok(began.listening && began.port > 0, 'its server listens until it has closed it');
  const after = handlers.notes().filter(({ pid, again, address }) => pid === old && (again || address === null));
  assert.deepEqual(after, [{ pid: old, listening: false, address: null }, { pid: old, again: 'ERR_SERVER_NOT_RUNNING' }]);
  await handlers.haft.stop();
});

beside('with --drain-signal none no signal comes before the time is over, and nothing waits for one', async (place) => {
  const handlers = await Handlers.start(place, newest.path, 'work', '-w', '1', '--drain-timeout', '60s', '--drain-signal', 'none');
  const [old] = handlers.haft.workers;
  await handlers.haft.post('/reload');
  await until('the end of the old worker', () => !alive(old), { within: 40_000 });
  const notes = handlers.notes().filter(({ pid }) => pid === old);
  assert.deepEqual(notes, [{ pid: old, closed: true }, { pid: old, code: 0 }]);
  await handlers.haft.stop();
});

beside('with --drain-signal INT its handler for that runs', async (place) => {
  const script = join(place.folder, 'int.cjs');
  const note = join(place.folder, 'note');
  writeFileSync(script, `
    const { appendFileSync } = require('fs');
    process.on('SIGINT', () => {
      appendFileSync(${JSON.stringify(note)}, JSON.stringify({ pid: process.pid, interrupted: true }) + '\\n');
      process.exit(0);
    });
    require('http').createServer((_, response) => response.end()).listen(3000);
    setInterval(() => {}, 1000);`);
  const haft = await place.haft('-w', '1', '--drain-timeout', '60s', '--drain-signal', 'INT', '--', newest.path, script);
  await haft.status();
  const old = [...haft.workers];
  await haft.post('/reload');
  await until('the end of the old worker', () => !old.some(alive), { within: 40_000 });
  assert.deepEqual(readNotes(note), old.map((pid) => ({ pid, interrupted: true })));
});

function readNotes(note) {
  if (!existsSync(note)) return [];
  return readFileSync(note, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
}

/** haft with such programs. */
class Handlers {
  static async start(place, node, kind, ...flags) {
    const handlers = new Handlers();
    const [note, gate] = [join(place.folder, 'note'), join(place.folder, 'gate')];
    const command = [node, file('node-handlers-server.cjs'), kind, note, gate];
    Object.assign(handlers, { note, gate, kind, haft: await place.haft(...flags, '--', ...command) });
    await handlers.haft.status();
    return handlers;
  }

  notes() {
    return readNotes(this.note);
  }

  open() {
    writeFileSync(this.gate, '');
  }

  /** What a client is answered. */
  ask(path) {
    const answer = new Promise((done, failed) => {
      const request = http.get(`${this.haft.url}${path}`, { agent: false }, (response) => {
        let body = '';
        response.on('data', (part) => (body += part)).on('end', () => done(body)).on('error', failed);
      });
      request.on('error', failed);
    });
    answer.catch(() => {}); // until it is asked for
    return within(60_000, path, answer);
  }

  async delivered(count) {
    await until('it is taken', async () => (await this.haft.ledger()).delivered >= count);
  }

  async begun(worker) {
    const begun = () => this.notes().some(({ pid, began }) => began && pid === worker);
    await until('its handler', begun, { within: 60_000 });
  }

  /** Ends the workers of these slots by `end`, in the middle of requests. */
  async end(which, end) {
    const { slots } = await this.haft.status();
    const going = which(slots).map(({ pid }) => pid);
    const { delivered } = await this.haft.ledger();
    const answers = [this.ask('/slow'), this.ask('/slow')];
    await this.delivered(delivered + 2);
    await end();
    for (const body of await Promise.all(answers)) assert.ok(slots.some(({ pid }) => `${pid}` === body), body);
    await this.ended(going);
    if (this.haft.child.how) return;
    const isOver = async () => (await this.haft.status()).draining.length === 0;
    await until('haft to know', () => this.haft.child.how || isOver());
  }

  /** Each of them has begun, worked and ended, and nothing has failed. */
  async ended(pids) {
    await until('their end', () => !pids.some(alive), { within: 60_000 });
    const notes = this.notes();
    assert.deepEqual(notes.filter(({ error }) => error), []);
    // Terminus sends itself the signal once more.
    const exit = this.kind === 'terminus' ? [] : [{ code: 0 }];
    for (const pid of pids) {
      const own = notes.filter((note) => note.pid === pid).map(({ pid, ...note }) => note);
      assert.equal(own.filter(({ began }) => began).length, 1, `${pid} is told once`);
      assert.equal(own.filter(({ worked }) => worked).length, 1, `${pid} has done its work`);
      // Node emits it again where a server is closed that is none.
      const closes = own.some(({ again }) => again) ? 2 : 1;
      assert.ok(own.filter(({ closed }) => closed).length <= closes, `${pid} has closed its server once`);
      assert.deepEqual(own.filter((note) => 'code' in note), exit);
    }
  }
}

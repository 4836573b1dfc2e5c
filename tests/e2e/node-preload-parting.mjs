// haft's preload without haft, on every version of Node: what it says of signals, how it ends sessions, and what it
// leaves alone. This program is the primary.

import assert from 'node:assert/strict';
import { copyFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';

import { WebSocket } from 'ws';

import { file } from './lib/files.mjs';
import { versions } from './lib/node-versions.mjs';
import { NodeWorker } from './lib/node-worker.mjs';
import { beside } from './lib/program.mjs';
import { until, within } from './lib/wait.mjs';

const NO_KEY = { HAFT_TAG_KEY: undefined };
const DISCONNECT = { cmd: 'NODE_CLUSTER', act: 'disconnect' };

for (const { name, path } of versions) {
  const parting = (place, env = NO_KEY) => new NodeWorker(place, path, [file('preload-parting.cjs')], { env });

  beside(`${name}: the preload reports which signals the program handles, at each change`, async (place) => {
    const worker = parting(place);
    await worker.url();
    assert.deepEqual(worker.said, [], 'nothing is said where nothing is handled');
    const expected = [];
    for (const [command, signals] of [
      ['on: SIGTERM', ['SIGTERM']],
      ['on: SIGTERM'],
      ['on: SIGINT', ['SIGTERM', 'SIGINT']],
      ['off: SIGTERM'],
      ['off: SIGTERM', ['SIGINT']],
      ['all off: SIGINT', []],
      ['once: SIGINT', ['SIGINT']],
      ['emit: SIGINT', []],
    ]) {
      await worker.ask(command);
      if (signals) expected.push({ cmd: 'NODE_HAFT', act: 'handles', signals });
      await until(`${command} is told`, () => worker.said.length === expected.length);
      assert.deepEqual(worker.said, expected, command);
    }
    await worker.ask('on: SIGTERM');
    assert.deepEqual(worker.messages, [], 'none of that is a message of the program');
    assert.deepEqual(await worker.disconnect(), { code: 0, signal: null });
  });

  beside(`${name}: what the program starts, and what starts programs, is left alone`, async (place) => {
    const worker = parting(place);
    await worker.url();
    const plain = new NodeWorker(place, path, [file('preload-parting.cjs')], { env: { NODE_OPTIONS: '' } });
    await plain.url();
    for (const command of ['tool', 'fork', 'thread']) {
      assert.equal(await worker.ask(command), await plain.ask(command), command);
    }
    for (const wrapper of ['npm-cli.js', 'npx', 'yarn-4.9.1.cjs', 'pnpm.cjs', 'corepack.js']) {
      const script = join(place.folder, wrapper);
      writeFileSync(script, 'process.send(["newListener", "error"].map((name) => process.listenerCount(name)));');
      const seen = async (env) => {
        const started = new NodeWorker(place, path, [script], { env });
        const counts = await until(wrapper, () => started.messages[0]);
        return [counts, started.child.lines];
      };
      // haft gives a wrapper no channel of Node's.
      const channel = { HAFT_NODE_CHANNEL: '200:0:201:json:now', NODE_UNIQUE_ID: undefined };
      assert.deepEqual(await seen(channel), await seen({ ...channel, NODE_OPTIONS: '' }), wrapper);
    }
  });

  beside(`${name}: sessions that poll end by a close packet, those of WebSockets by a close frame`, async (place) => {
    const worker = parting(place);
    const url = await worker.url();
    const agent = new http.Agent({ keepAlive: true });
    place.atEnd(() => agent.destroy());
    const closed = [];
    for (const version of [3, 4, 5, 6]) {
      const query = `${url}/${version}/?EIO=${version === 3 ? 3 : 4}&transport=`;
      // One session waits at a poll over a connection that is kept, one over one that is not.
      for (const options of [{ agent }, { agent: false, headers: { Connection: 'close' } }]) {
        const { body } = await ask(`${query}polling`, options);
        const [, sid] = /"sid":"([^"]+)"/.exec(body);
        closed.push(ask(`${query}polling&sid=${sid}`, options).then(({ body }) => assert.match(body, /^(1:)?1$/)));
      }
      const socket = new WebSocket(`${query.replace('http', 'ws')}websocket`);
      place.atEnd(() => socket.terminate());
      closed.push(new Promise((done) => socket.once('close', done)));
      await within(60_000, 'a session', new Promise((done, failed) => socket.once('message', done).once('error', failed)));
    }
    await until('all to poll', async () => (await worker.ask('polls')) === 8);
    const began = Date.now();
    worker.say({ ...DISCONNECT, seq: worker.seq++, haft: { within: 2000 } });
    await within(60_000, 'all to be told', Promise.all(closed));
    assert.ok(Date.now() - began > 800, 'not all at once');
    assert.deepEqual(await until('its end', () => worker.child.how, { within: 60_000 }), { code: 0, signal: null });
    assert.deepEqual(worker.child.lines, []);
  });

  beside(`${name}: a message to a session whose connection is not kept brings the close packet with it`, async (place) => {
    const worker = parting(place);
    const url = `${await worker.url()}/6/?EIO=4&transport=polling`;
    const options = { agent: false, headers: { Connection: 'close' } };
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    place.atEnd(() => agent.destroy());
    // The way by which the message will come is there before the worker takes no connection any more.
    const [, other] = /"sid":"([^"]+)"/.exec((await ask(url, { agent })).body);
    const [, sid] = /"sid":"([^"]+)"/.exec((await ask(url, options)).body);
    const polled = ask(`${url}&sid=${sid}`, options);
    const first = ask(`${url}&sid=${other}`);
    await until('both to poll', async () => (await worker.ask('polls')) === 2);
    worker.say({ ...DISCONNECT, seq: worker.seq++, haft: { within: 600_000 } });
    assert.equal((await first).body, '1');
    const posted = { agent, method: 'POST', body: '4hello', headers: { 'Content-Type': 'text/plain' } };
    await ask(`${url}&sid=${sid}`, posted);
    assert.equal((await polled).body, '4hello\x1e1');
    assert.deepEqual(await until('its end', () => worker.child.how), { code: 0, signal: null });
  });

  beside(`${name}: when the channel ends, what is connected is served until the drain time is over`, async (place) => {
    const worker = parting(place, { ...NO_KEY, HAFT_DRAIN_TIMEOUT: '3000' });
    const url = await worker.url();
    const socket = new WebSocket(`${url.replace('http', 'ws')}/6/?EIO=4&transport=websocket`);
    place.atEnd(() => socket.terminate());
    const closed = new Promise((done) => socket.once('close', done));
    await within(60_000, 'a session', new Promise((done, failed) => socket.once('message', done).once('error', failed)));
    await worker.ask('break');
    const began = Date.now();
    worker.child.process.disconnect();
    const echo = new Promise((done) => socket.on('message', (data) => `${data}` === '4hello' && done()));
    socket.send('4hello');
    await within(60_000, 'an echo', echo);
    await within(60_000, 'the goodbye', closed);
    assert.ok(Date.now() - began >= 1500, 'it is left alone for half of the time');
    assert.deepEqual(await until('its end', () => worker.child.how, { within: 60_000 }), { code: 0, signal: null });
    assert.deepEqual(worker.child.lines, []);
  });

  beside(`${name}: what breaks while the primary lives breaks the program, as ever`, async (place) => {
    const worker = parting(place);
    await worker.url();
    await worker.ask('break');
    assert.deepEqual(await until('its end', () => worker.child.how), { code: 1, signal: null });
    assert.ok(worker.child.lines.some((line) => line.includes('write EPIPE')));
  });

  beside(`${name}: without the preload Node pays no heed to what is said to it`, async (place) => {
    for (const serialization of ['json', 'advanced']) {
      const worker = new NodeWorker(place, path, [file('preload-plain.cjs')], { env: { NODE_OPTIONS: '' }, serialization });
      const url = await worker.url();
      worker.say({ cmd: 'NODE_HAFT', act: 'linger', within: 100 });
      worker.say({ cmd: 'NODE_HAFT', act: 'something else', within: {} });
      assert.equal((await ask(url)).status, 200);
      worker.say({ ...DISCONNECT, seq: worker.seq++, haft: { within: 100 } });
      assert.deepEqual(await until('its end', () => worker.child.how), { code: 0, signal: null });
      assert.deepEqual(worker.child.lines, []);
    }
  });
}

beside('under the permission model the preload may be read, and nothing else that may not', async (place) => {
  const { path } = versions.find(({ name }) => name === 'Node 24') ?? versions.at(-1);
  copyFileSync(file('preload-plain.cjs'), join(place.folder, 'plain.cjs'));
  const haft = await place.haft('-w', '1', '--', path, '--permission', `--allow-fs-read=${join(place.folder, 'plain.cjs')}`, 'plain.cjs');
  assert.match((await ask(haft.url)).body, /127\.0\.0\.1/);
  await haft.stop();
});

function ask(url, { body, ...options } = {}) {
  const answered = new Promise((resolve, reject) => {
    const request = http.request(url, options, (response) => {
      const { statusCode: status, headers } = response;
      const whole = response.setEncoding('utf8').toArray();
      whole.then((parts) => resolve({ status, headers, body: parts.join('') }), reject);
    });
    request.once('error', reject).end(body);
  });
  return within(60_000, `an answer from ${url}`, answered);
}

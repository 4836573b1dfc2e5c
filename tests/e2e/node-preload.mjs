// haft's preload in unmodified programs, on every version of Node, without haft: this program is the primary.

import assert from 'node:assert/strict';
import { copyFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { join } from 'node:path';
import { test } from 'node:test';

import selfsigned from 'selfsigned';

import { file } from './lib/files.mjs';
import { Home } from './lib/home.mjs';
import { versions } from './lib/node-versions.mjs';
import { ENVIRONMENT, NodeWorker, PRELOAD } from './lib/node-worker.mjs';
import { tagged } from './lib/preload-tag.mjs';
import { program } from './lib/program.mjs';
import { until, within } from './lib/wait.mjs';

const ENGINES = [3, 4, 5, 6];
const KEY = ENVIRONMENT.HAFT_TAG_KEY;
const own = (base) => tagged(base, 2, 7, KEY);

/** How the program makes ids, and what they are without the tag. */
const KINDS = {
  usual: /^[\w-]{20}$/,
  instance: /^instance_\d+$/,
  promise: /^promise_\d+$/,
  prototype: /^prototype_\d+$/,
  subclass: /^subclass_\d+$/,
  parent: /^parent_[\w-]{20}$/,
  constant: /^constant_\d+$/,
  number: /^1\d{3}$/,
};

test('the tag is the one that haft writes', async () => {
  assert.equal(await own('lgy5fjW0yVKcPbBnAAAC'), 'lgy5fjW0yVKcPbBnAAAC100AAIAAAAHaaeY3mVb');
});

for (const { name, path } of versions) {
  for (const main of ['preload-app-main.cjs', 'preload-app-main.mjs']) {
    program(`${name}, ${main}: every session id is tagged once`, async (place) => {
      const worker = new NodeWorker(place, path, [file(main)]);
      const url = await worker.url();
      for (const version of ENGINES) await tags(url, version);
      assert.equal(await worker.ask('untouched'), true, 'the program finds its own functions where it has put them');
      await talks(place, url);
      assert.deepEqual(worker.child.lines, [], 'nothing is printed');
    });
  }
}

/** Every way to make ids, with one version of Engine.IO. */
async function tags(url, version) {
  for (const [kind, pattern] of Object.entries(KINDS)) {
    if (version === 3 && kind === 'promise') continue;
    const path = `${url}/${version}/${kind}/`;
    const sid = await open(path, version);
    const base = sid.slice(0, -19);
    assert.match(base, pattern, `${sid} of ${path}`);
    assert.equal(sid, await own(base), path);
    assert.match(sid, /^[\w-]+$/, 'only characters of the engine\'s own ids');
    assert.equal(await echo(path, version, sid), 'hello');
  }
  const path = `${url}/${version}/given/`;
  const theirs = await tagged('theirs', 3, 7, KEY);
  for (const given of ['plain', await own('mine'), theirs, 'no-tag', 'x100AAIAAAAHaaeY3mVb']) {
    const base = given.startsWith('mine') || given.startsWith('theirs') ? given.slice(0, -19) : given;
    assert.equal(await open(path, version, { 'x-id': given }), await own(base), given);
  }
  assert.match(await open(`${url}/${version}/changed/`, version), /^[\w-]{20}100/);
  const changed = await open(`${url}/${version}/changed/`, version);
  assert.match(changed, /^changed_[\w-]{20}100[\w-]{16}$/);
  assert.equal(changed, await own(changed.slice(0, -19)));
  if (version === 3) return;
  // Handshakes that come to nothing: one whose id cannot be made, and one that needs none.
  assert.equal((await ask(query(`${url}/${version}/failing/`, version))).status, 400);
  assert.equal((await ask(query(`${url}/${version}/usual/`, 3))).status, 400);
}

/** Socket.IO's own client, by both ways. */
async function talks(place, url) {
  for (const transports of [['polling', 'websocket'], ['websocket']]) {
    const client = place.client(url, new Home('127.0.0.5'), { transports });
    await client.connected();
    await client.upgraded();
    const { sid } = await client.hello();
    assert.equal(sid, client.socket.io.engine.id);
    assert.equal(sid, await own(sid.slice(0, -19)));
    assert.deepEqual(await client.ask('echo', 'a word'), ['a word']);
    client.close();
  }
}

for (const { name, path } of versions) {
  program(`${name}: a request for another worker's session ends its connection`, async (place) => {
    const url = await new NodeWorker(place, path, [file('preload-app-main.cjs')]).url();
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    place.atEnd(() => agent.destroy());
    for (const version of ENGINES) {
      const path = `${url}/${version}/usual/`;
      const live = await open(path, version);
      for (const [sid, connection] of [
        [await tagged('lgy5fjW0yVKcPbBnAAAC', 3, 7, KEY), 'close'],
        [await tagged('lgy5fjW0yVKcPbBnAAAC', 2, 8, KEY), 'close'],
        [(await tagged('a b', 2, 8, KEY)).replace(' ', '%20'), 'close'],
        [await own('lgy5fjW0yVKcPbBnAAAC'), 'keep-alive'],
        [await tagged('lgy5fjW0yVKcPbBnAAAC', 3, 7, KEY.replace('a', 'b')), 'keep-alive'],
        ['lgy5fjW0yVKcPbBnAAAC', 'keep-alive'],
        ['%', 'keep-alive'],
      ]) {
        const { status, headers, body } = await ask(`${query(path, version)}&sid=${sid}`, { agent });
        const seen = [status, JSON.parse(body).message, headers.connection];
        assert.deepEqual(seen, [400, 'Session ID unknown', connection], `${path} ${sid}`);
      }
      const posted = await post(path, version, live, 'hello', { agent });
      assert.deepEqual([posted.status, posted.headers.connection], [200, 'keep-alive'], path);
    }
  });

  program(`${name}: neither the program nor what it starts sees key or preload`, async (place) => {
    const copy = join(place.folder, 'a "folder" preload.cjs');
    copyFileSync(PRELOAD, copy);
    const NODE_OPTIONS = `--title="a  b" --require "${copy.replaceAll('"', '\\"')}" --stack-trace-limit=7`;
    const worker = new NodeWorker(place, path, [file('preload-app-main.cjs')], { env: { NODE_OPTIONS } });
    const url = await worker.url();
    const rest = '--title="a  b" --stack-trace-limit=7';
    const { own: program, thread } = await worker.ask('seen');
    assert.deepEqual(program, { options: rest, preloads: 1 });
    assert.deepEqual([thread.key, thread.options], [undefined, rest]);
    // What it starts does without the file.
    rmSync(copy);
    assert.deepEqual(await worker.ask('child'), { options: rest, preloads: 0 });
    assert.match(await open(`${url}/6/usual/`, 6), /100[\w-]{16}$/);
  });

  for (const serialization of ['json', 'advanced']) {
    for (const byMessage of [undefined, 'sticky:balance']) {
      const way = `${serialization}, ${byMessage ? 'net.Socket' : 'net.Native'}`;
      program(`${name}, ${way}: the program sees the address that a proxy stated`, async (place) => {
        const options = { serialization, byMessage };
        await addresses(place, new NodeWorker(place, path, [file('preload-app-main.cjs')], options));
      });
    }
  }

  program(`${name}, TLS: the program sees the address that a proxy stated`, async (place) => {
    const { private: key, cert } = selfsigned.generate([{ name: 'commonName', value: 'localhost' }], { keySize: 2048 });
    writeFileSync(join(place.folder, 'tls.json'), JSON.stringify({ key, cert }));
    const worker = new NodeWorker(place, path, [file('preload-plain.cjs'), 'tls.json']);
    const { port } = new URL(await worker.url());
    worker.told = { address: '203.0.113.9', family: 'IPv4', port: 4711 };
    const { body } = await ask(`https://127.0.0.1:${port}`, { rejectUnauthorized: false }, https);
    assert.deepEqual(JSON.parse(body), { address: '203.0.113.9' });
  });

  program(`${name}: addresses are reported without a key too, and nothing is tagged`, async (place) => {
    const worker = new NodeWorker(place, path, [file('preload-app-main.cjs')], { env: { HAFT_TAG_KEY: undefined } });
    await addresses(place, worker);
    assert.match(await open(`${await worker.url()}/6/usual/`, 6), /^[\w-]{20}$/);
    assert.deepEqual(worker.said, []);
  });

  program(`${name}: what is no worker of haft's is left alone`, async (place) => {
    const worker = new NodeWorker(place, path, [file('preload-app-main.cjs')], { env: { HAFT_SLOT: undefined } });
    const url = await worker.url();
    assert.match(await open(`${url}/6/usual/`, 6), /^[\w-]{20}$/);
    assert.equal((await worker.ask('seen')).own.options, undefined);
    assert.deepEqual(worker.said, []);
  });

  for (const env of [{ HAFT_SLOT: '70000' }, { HAFT_GENERATION: undefined }, { HAFT_TAG_KEY: 'abc' }]) {
    program(`${name}: ${JSON.stringify(env)} is reported, and the program goes on`, async (place) => {
      const worker = new NodeWorker(place, path, [file('preload-app-main.cjs')], { env });
      await addresses(place, worker);
      assert.match(await open(`${await worker.url()}/6/usual/`, 6), /^[\w-]{20}$/);
      assert.equal(worker.child.lines.length, 1);
      assert.match(worker.child.lines[0], /^haft: /);
    });
  }
}

/** What HTTP, Express and Socket.IO see of a client. */
async function addresses(place, worker) {
  const url = await worker.url();
  for (const told of [
    { address: '203.0.113.9', family: 'IPv4', port: 4711 },
    { address: '2001:db8::1', family: 'IPv6', port: 0 },
  ]) {
    worker.told = told;
    assert.deepEqual(await answer(`${url}/http`), told);
    assert.equal((await answer(`${url}/express`)).address, told.address);
    for (const transports of [['polling'], ['websocket']]) {
      const client = place.client(url, new Home('127.0.0.5'), { transports });
      await client.connected();
      assert.equal((await client.hello()).address, told.address, transports[0]);
      client.close();
    }
  }
  worker.told = undefined;
  const { address, family, port } = await answer(`${url}/http`);
  assert.deepEqual([address, family], ['127.0.0.1', 'IPv4']);
  assert.ok(port > 0);
}

for (const { name, path } of versions) {
  program(`${name}: the preload reports the sessions, and when none is left`, async (place) => {
    const worker = new NodeWorker(place, path, [file('preload-app-main.mjs')]);
    const url = await worker.url();
    assert.deepEqual(worker.said.filter(({ act }) => act !== 'path'), [{ cmd: 'NODE_HAFT', act: 'tags' }]);
    const sessions = () => worker.said.filter(({ act }) => act === 'sessions').at(-1)?.count;
    const idle = () => worker.said.filter(({ act }) => act === 'idle').length;
    const opened = [];
    for (const version of ENGINES) {
      const path = `${url}/${version}/usual/`;
      opened.push([path, version, await open(path, version)]);
    }
    await until('as many sessions as there are', () => sessions() === 4);
    await close(...opened.pop());
    await until('one session less', () => sessions() === 3);
    worker.say({ cmd: 'NODE_HAFT', act: 'linger' });
    await worker.ask('untouched');
    assert.equal(idle(), 0, 'there are sessions');
    for (const session of opened) await close(...session);
    await until('idle', () => idle() === 1);
    assert.equal(sessions(), 0);
    // Only once, whatever still comes.
    const late = await open(`${url}/6/usual/`, 6);
    await until('one more', () => sessions() === 1);
    await close(`${url}/6/usual/`, 6, late);
    await until('none again', () => sessions() === 0);
    await worker.ask('untouched');
    assert.equal(idle(), 1);
    assert.equal(worker.said.filter(({ act }) => act === 'tags').length, 1);
    assert.deepEqual(await worker.disconnect(), { code: 0, signal: null });
  });

  program(`${name}: without Engine.IO there is nothing to wait for`, async (place) => {
    const worker = new NodeWorker(place, path, [file('preload-plain.cjs')]);
    await worker.url();
    worker.say({ cmd: 'NODE_HAFT', act: 'linger' });
    await until('idle', () => worker.said.length > 0);
    assert.deepEqual(worker.said, [{ cmd: 'NODE_HAFT', act: 'idle' }]);
    assert.deepEqual(await worker.disconnect(), { code: 0, signal: null });
    assert.deepEqual(worker.child.lines, []);
  });

  program(`${name}: a program that has left its primary goes on`, async (place) => {
    const worker = new NodeWorker(place, path, [file('preload-plain.cjs')]);
    await worker.url();
    worker.say('leave');
    assert.deepEqual(await until('its end', () => worker.child.how), { code: 0, signal: null });
    assert.deepEqual(worker.child.lines, ['alone']);
    assert.deepEqual(worker.said, []);
  });

  program(`${name}: customization hooks that bring the source themselves`, async (place) => {
    const args = ['--import', file('preload-register.mjs'), file('preload-hooked.mjs')];
    const worker = new NodeWorker(place, path, args);
    await talks(place, await worker.url());
    assert.deepEqual(worker.said[0], { cmd: 'NODE_HAFT', act: 'tags' });
  });

  program(`${name}: a program that is odd goes on as it is`, async (place) => {
    const worker = new NodeWorker(place, path, [file('preload-odd.cjs')]);
    const url = await worker.url();
    const sid = await open(`${url}/usual/`, 5);
    assert.equal(sid, await own(sid.slice(0, -19)));
    assert.equal(await open(`${url}/frozen/`, 5), await own('frozen'), 'what it inherits is not frozen');
    worker.say({ cmd: 'NODE_HAFT', act: 'linger' });
    const { called, whole } = await answer(url);
    assert.deepEqual([called.filter((one) => one !== 'proxy'), whole], [['linger'], 'whole']);
    await until('sessions', () => worker.said.at(-1).count === 2);
    assert.equal(worker.child.lines.length, 1);
    assert.match(worker.child.lines[0], /^haft: .*Cannot redefine property: handshake/);
  });
}

// --- Engine.IO by hand ----------------------------------------------------------------------------------------------

function query(path, version) {
  return `${path}?EIO=${version === 3 ? 3 : 4}&transport=polling`;
}

/** `{ status, headers, body }` of the answer. */
function ask(url, { body, ...options } = {}, { request: begin } = http) {
  const answered = new Promise((resolve, reject) => {
    const request = begin(url, { agent: false, ...options }, (response) => {
      const { statusCode: status, headers } = response;
      const whole = response.setEncoding('utf8').toArray();
      whole.then((parts) => resolve({ status, headers, body: parts.join('') }), reject);
    });
    request.once('error', reject).end(body);
  });
  return within(60_000, `an answer from ${url}`, answered);
}

async function answer(url) {
  return JSON.parse((await ask(url)).body);
}

/** Opens a session and gives its id. */
async function open(path, version, headers) {
  const { status, body } = await ask(query(path, version), { headers });
  assert.equal(status, 200, `${path}: ${body}`);
  return /"sid":"?([^",]+)/.exec(body)[1];
}

/** Sends one packet: engine.io-protocol's payload of version 3 has a length in front. */
function post(path, version, sid, text, options) {
  const packet = text === undefined ? '1' : `4${text}`;
  const body = version === 3 ? `${packet.length}:${packet}` : packet;
  const headers = { 'Content-Type': 'text/plain;charset=UTF-8', 'Content-Length': body.length };
  return ask(`${query(path, version)}&sid=${sid}`, { method: 'POST', headers, body, ...options });
}

/** What comes back of a message. */
async function echo(path, version, sid) {
  assert.equal((await post(path, version, sid, 'hello')).body, 'ok');
  return /4(hello)/.exec((await ask(`${query(path, version)}&sid=${sid}`)).body)?.[1];
}

async function close(path, version, sid) {
  assert.equal((await post(path, version, sid)).body, 'ok');
}

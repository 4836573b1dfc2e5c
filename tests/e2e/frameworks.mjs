// Programs in frameworks, with the real packages: with --affinity session the sessions of one address are spread, polling
// works over new connections, and a reload keeps sessions. And libraries that speak to a primary of their own.

import assert from 'node:assert/strict';

import { echoes, who, whoAnswers } from './lib/app.mjs';
import { fetchText } from './lib/fetch.mjs';
import { file } from './lib/files.mjs';
import { Home } from './lib/home.mjs';
import { versions } from './lib/node-versions.mjs';
import { tagOf } from './lib/preload-tag.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

const WORKERS = 3;
const SESSIONS = 24;
/** Packages of Hapi and Nest ask for Node 22. */
const { path: node } = versions.find(({ name }) => name === 'Node 24') ?? versions.at(-1);
const HERE = new Home('127.0.0.1');

for (const framework of ['fastify', 'koa', 'hapi', 'nest']) {
  program(`${framework}: sessions of one address are spread, poll over new connections, and outlive a reload`, async (place) => {
    const flags = ['-w', `${WORKERS}`, '--affinity', 'session', '--drain-timeout', '600s'];
    const haft = await place.haft(...flags, '--', node, file('framework-server.cjs'), framework);
    assert.ok((await whoAnswers(haft.url, HERE)).pid, 'what is no session is served as well');
    const clients = await come(place, haft, SESSIONS);
    const counts = new Array(WORKERS).fill(0);
    for (const client of clients) counts[client.worker.slot]++;
    assert.ok(Math.max(...counts) <= 1.5 * (SESSIONS / WORKERS), `sessions are spread: ${counts}`);
    await inTurns(clients, 8, (client) => echoes(client, 2));

    assert.equal((await haft.post('/reload')).status, 202);
    await until('the reload', async () => {
      const { reload } = await haft.status();
      assert.notEqual(reload.state, 'failed', reload.description);
      return reload.state === 'done';
    }, { within: 60_000 });
    clients.push(...(await come(place, haft, WORKERS)));
    await inTurns(clients, 8, (client) => echoes(client, 2));
    for (const [index, client] of clients.entries()) {
      assert.deepEqual([client.connects, client.disconnects, client.errors], [1, [], []], 'one session each');
      const { slot, generation } = tagOf(client.socket.io.engine.id) ?? assert.fail('the session has no tag');
      assert.deepEqual([slot, generation], [client.worker.slot, index < SESSIONS ? 0 : 1]);
    }
    const { opening, lost_session: lost } = await haft.routed();
    assert.deepEqual([opening, lost], [clients.length, 0]);
    clients.forEach((client) => client.close());
    await until('the old workers to end', async () => (await haft.total('haft_workers_draining')) === 0, { within: 60_000 });
    assert.deepEqual((await haft.ledger()).refused, 0);
    await haft.stop();
  });
}

/** Clients of one address, every other one of which only polls: over a new connection each time. */
async function come(place, haft, count) {
  return inTurns(Array.from({ length: count }, (_, index) => index), 8, async (index) => {
    const transports = index % 2 === 0 ? ['polling'] : ['polling', 'websocket'];
    const client = await place.client(haft.url, HERE, { transports }).connected();
    client.worker = await who(client);
    if (transports.length > 1) await client.upgraded();
    return client;
  });
}

for (const [library, cure] of [
  ['log4js', /log4js sends its lines to a primary.*disableClustering: true/],
  ['limiter', /rate-limiter-flexible asks a primary for its counters.*RateLimiterRedis/],
]) {
  program(`${library}: its missing primary is logged once, with the cure`, async (place) => {
    const haft = await place.haft('-w', '2', '--', node, file('clustered-server.cjs'), library);
    for (let request = 0; request < 4; request++) await fetchText(new URL('/', haft.url), HERE).catch(() => {});
    await haft.child.heard(cure);
    await until('all messages to be counted', async () => (await haft.total('haft_node_messages_total')) >= 2);
    assert.equal(haft.child.lines.filter((line) => cure.test(line)).length, 1, haft.child.tail());
    assert.ok(!haft.child.lines.some((line) => /a line that nobody writes/.test(line)), 'as haft says');
    await haft.stop();
  });
}

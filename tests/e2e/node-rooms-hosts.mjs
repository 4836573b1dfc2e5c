// Rooms of several hosts over Redis: two haft with the same program for one process, each with its own workers.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';

import { redis, redisCluster, redisWithSentinels, redisWithTls } from './lib/databases.mjs';
import { Haft } from './lib/haft.mjs';
import { SERVER, hearing, onAll, one, run, settled } from './lib/node-rooms.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

program('all clients are reached on both hosts, over one link each', async (place) => {
  const { url } = await redis(place);
  const hosts = await two(place, url);
  const clients = await gather(place, hosts);
  const heard = hearing(clients, 'all');
  const payload = { text: 'äöü', bytes: randomBytes(100_000) };
  for (const client of one(clients)) await run(client, 'io.emit("all", args)', payload);
  await until('all to hear all', () => heard.every((words) => words.length === 4));
  assert.ok(heard.every((words) => words.every(([got]) => got.bytes.equals(payload.bytes))));
  for (const client of one(clients)) {
    assert.equal(await run(client, 'return (await io.fetchSockets()).length'), clients.length);
    assert.equal((await run(client, 'return io.serverSideEmitWithAck("ask")')).length, 3);
  }
  clients.forEach(({ socket }, at) => socket.on('question', (answer) => answer(at)));
  const answers = await run(clients[0], 'return io.timeout(20000).emitWithAck("question")');
  assert.deepEqual(answers.sort((one, other) => one - other), clients.map((_, at) => at));
  for (const haft of hosts) {
    assert.equal(await haft.total('haft_rooms_hosts'), 1);
    assert.equal(await haft.total('haft_rooms_dropped_total'), 0);
    await haft.child.heard(/rooms are shared with other hosts over Redis/);
  }
  await Promise.all(hosts.map((haft) => haft.stop()));
});

program('a host that dies is not waited for, and the others go on', async (place) => {
  const { url } = await redis(place);
  const [first, second] = await two(place, url, '--drain-timeout', '1s');
  const clients = await gather(place, [first, second]);
  clients.forEach(({ socket }) => socket.io.reconnection(false));
  const [own] = one(clients.filter(({ host }) => host === first));
  const here = clients.filter(({ host }) => host === first);
  await second.child.end('SIGKILL');
  const began = performance.now();
  await until('the others to be given up', async () => (await run(own, 'return (await io.fetchSockets()).length')) === here.length);
  place.say(`a host's death was known after ${((performance.now() - began) / 1000).toFixed(1)} s`);
  assert.equal(await first.total('haft_rooms_hosts'), 0);
  await settled(here, own);
  await first.stop();
});

program('a host that was only late is given up, and is back with all its members', async (place) => {
  const { url } = await redis(place);
  const [first, second] = await two(place, url);
  const clients = await gather(place, [first, second]);
  const here = clients.filter(({ host }) => host === first);
  const late = clients.find(({ host }) => host === second);
  second.child.process.kill('SIGSTOP');
  try {
    await until('the late host to be given up', async () => (await first.total('haft_rooms_hosts')) === 0);
    assert.equal(await run(here[0], 'return (await io.fetchSockets()).length'), here.length);
  } finally {
    second.child.process.kill('SIGCONT');
  }
  for (const client of [here[0], late]) {
    await until('all to be found again', async () => (await run(client, 'return (await io.fetchSockets()).length')) === clients.length);
    await settled(clients, client);
  }
  assert.equal(await second.total('haft_rooms_link_breaks_total'), 0, 'its link has held');
  for (const haft of [first, second]) {
    assert.equal(await haft.total('haft_rooms_hosts'), 1);
    assert.equal((await haft.counts('haft_rooms_dropped_total', 'reason')).missed, 0);
  }
  assert.ok(clients.every(({ disconnects }) => disconnects.length === 0), 'no client was lost');
  await Promise.all([first, second].map((haft) => haft.stop()));
});

program('without Redis rooms are each host\'s own, and it is logged once; with it again they are shared', async (place) => {
  const server = await redis(place);
  const hosts = await two(place, server.url, '--redis-required');
  const clients = await gather(place, hosts);
  await server.child.end('SIGTERM');
  for (const haft of hosts) {
    await until('503 from /readyz', async () => (await haft.get('/readyz')).status === 503);
    assert.match((await haft.get('/readyz')).body, /the link to Redis is broken/);
    await until('the other host to be given up', async () => (await haft.total('haft_rooms_hosts')) === 0);
  }
  for (const haft of hosts) {
    const here = clients.filter(({ host }) => host === haft);
    await settled(here);
    assert.equal(await run(here[0], 'return (await io.fetchSockets()).length'), here.length);
  }
  await redis(place, server.port);
  for (const haft of hosts) {
    await until('200 from /readyz', async () => (await haft.get('/readyz')).status === 200);
    await until('the other host', async () => (await haft.total('haft_rooms_hosts')) === 1);
    assert.equal(haft.child.lines.filter((line) => line.includes('the link to Redis')).length, 1, 'it is told once');
    assert.equal(await haft.total('haft_rooms_link_breaks_total'), 1);
  }
  await until('all to be found', async () => (await run(clients[0], 'return (await io.fetchSockets()).length')) === clients.length);
  await settled(clients);
  assert.ok(clients.every(({ disconnects }) => disconnects.length === 0), 'no client was lost');
  await Promise.all(hosts.map((haft) => haft.stop()));
});

program('over TLS rooms are shared where the certificate is trusted, and nowhere else', async (place) => {
  const { url, authority } = await redisWithTls(place);
  const trusting = await Promise.all(['one', 'two'].map((name) => host(place, name, { under: ['env', `SSL_CERT_FILE=${authority}`] }, '--redis', url)));
  const doubting = await host(place, 'three', {}, '--redis', url);
  const clients = await gather(place, trusting);
  await settled(clients);
  await doubting.child.heard(/the link to Redis at rediss:\/\/127\.0\.0\.1:\d+ is broken.*certificate/i);
  assert.equal(await doubting.total('haft_rooms_hosts'), 0);
  for (const haft of [...trusting, doubting]) {
    assert.doesNotMatch(haft.child.lines.join('\n'), /a-secret/, 'the password is told nowhere');
    await haft.stop();
  }
});

program('with Sentinel the link follows the primary', async (place) => {
  const { url, primary, at, replicaAt } = await redisWithSentinels(place);
  const hosts = await two(place, url, '--redis-required');
  const clients = await gather(place, hosts);
  for (const haft of hosts) await haft.child.heard(new RegExp(`shared with other hosts over Redis at 127\\.0\\.0\\.1:${at} `));
  await primary.end('SIGKILL');
  const began = performance.now();
  for (const haft of hosts) await haft.child.heard(new RegExp(`shared with other hosts over Redis at 127\\.0\\.0\\.1:${replicaAt} `));
  place.say(`the new primary was found ${((performance.now() - began) / 1000).toFixed(1)} s after the death of the old one`);
  await areBack(hosts, clients);
  for (const haft of hosts) {
    assert.doesNotMatch(haft.child.lines.join('\n'), /secret/, 'no password is logged');
    await haft.stop();
  }
});

program('of a Redis Cluster any node will do, and the next one when it dies', async (place) => {
  const nodes = await redisCluster(place);
  const url = (...these) => `redis+cluster://${these.map(({ address }) => address).join(',')}`;
  const [one, another, third] = nodes;
  // Whichever the first host begins with, the second one is with a node of its own.
  const hosts = await Promise.all([['one', url(one, another)], ['two', url(third)]].map(([name, to]) => host(place, name, {}, '--redis', to, '--redis-required')));
  const clients = await gather(place, hosts);
  await settled(clients);
  const [[, address]] = await hosts[0].child.heard(/shared with other hosts over Redis at (\S+) /);
  const [used, next] = address === one.address ? [one, another] : [another, one];
  await used.child.end('SIGKILL');
  await hosts[0].child.heard(new RegExp(`shared with other hosts over Redis at ${next.address.replaceAll('.', '\\.')} `));
  await areBack(hosts, clients, 1);
  await Promise.all(hosts.map((haft) => haft.stop()));
});

program('a Redis that is no node of a cluster is not taken for one', async (place) => {
  const { url } = await redis(place);
  const haft = await host(place, 'one', {}, '--redis', url.replace('redis:', 'redis+cluster:'));
  await haft.child.heard(/127\.0\.0\.1:\d+ is no node of a Redis Cluster/);
  assert.equal(await haft.total('haft_rooms_linked'), 0);
  await haft.stop();
});

program('what other hosts publish faster than it can be taken waits in Redis, not in haft', async (place) => {
  const { url, port } = await redis(place, undefined, '--client-output-buffer-limit', 'pubsub 0 0 0');
  const haft = await host(place, 'one', {}, '--redis', url, '--redis-prefix', 'chat');
  await haft.child.heard(/rooms are shared with other hosts/);
  const peak = () => Number(readFileSync(`/proc/${haft.child.pid}/status`, 'utf8').match(/^VmHWM:\s+(\d+) kB$/m)[1]) / 1024;
  const before = peak();
  const count = 150_000;
  haft.child.process.kill('SIGSTOP');
  try {
    await publish(port, 'chat:rooms:1', messageOfAnotherHost(1000), count);
  } finally {
    haft.child.process.kill('SIGCONT');
  }
  await until('all to have come', async () => (await haft.counts('haft_rooms_dropped_total', 'reason')).unknown === count);
  place.say(`${count} messages of 1,000 bytes that waited in Redis: haft had at most ${(peak() - before).toFixed(0)} MiB more`);
  assert.ok(peak() - before < 64, `${peak() - before} MiB more`);
  assert.equal(await haft.total('haft_rooms_link_breaks_total'), 0, 'the link has held');
  await haft.stop();
});

/** A message for all, of a member that is not known (src/rooms/bridge.rs). */
function messageOfAnotherHost(size) {
  const member = Buffer.from([0, 0, 0, 7, 0, 0, 0, 1]);
  const frame = Buffer.concat([Buffer.alloc(4), Buffer.of(0), member, Buffer.alloc(size)]);
  frame.writeUInt32BE(frame.length - 4);
  return Buffer.concat([Buffer.of(1, 1, 0, 0, 0, 7), Buffer.alloc(8), frame]);
}

/** Publishes it so often, and resolves when Redis has taken all. */
async function publish(port, channel, payload, count) {
  const socket = net.connect(port, '127.0.0.1');
  const head = `*3\r\n$7\r\nPUBLISH\r\n$${channel.length}\r\n${channel}\r\n$${payload.length}\r\n`;
  const command = Buffer.concat([Buffer.from(head), payload, Buffer.from('\r\n')]);
  const AT_ONCE = 100;
  const commands = Buffer.concat(Array(AT_ONCE).fill(command));
  let answers = 0;
  // Each answer is one line, as :1.
  socket.on('data', (data) => (answers += data.toString('latin1').split('\n').length - 1));
  for (let sent = 0; sent < count; sent += AT_ONCE) {
    if (!socket.write(commands)) await once(socket, 'drain');
  }
  await until('all answers of Redis', () => answers === count);
  socket.destroy();
}

program('applications with other prefixes do not reach each other', async (place) => {
  const { url } = await redis(place);
  const hosts = await Promise.all(['a', 'b'].map((prefix) => host(place, prefix, {}, '--redis', url, '--redis-prefix', prefix)));
  const clients = await gather(place, hosts, false);
  const here = clients.filter((client) => client.host === hosts[0]);
  assert.equal(await run(here[0], 'return (await io.fetchSockets()).length'), here.length);
  assert.equal(await hosts[0].total('haft_rooms_hosts'), 0);
  await Promise.all(hosts.map((haft) => haft.stop()));
});

/** The first `broken` hosts have lost their link once, and have another one; no client has noticed. */
async function areBack(hosts, clients, broken = hosts.length) {
  for (const [index, haft] of hosts.entries()) {
    await until('200 from /readyz', async () => (await haft.get('/readyz')).status === 200);
    await until('the other host', async () => (await haft.total('haft_rooms_hosts')) === 1);
    const times = index < broken ? 1 : 0;
    assert.equal(haft.child.lines.filter((line) => line.includes('the link to Redis')).length, times, 'it is logged once');
    assert.equal(await haft.total('haft_rooms_link_breaks_total'), times);
  }
  await until('all to be found', async () => (await run(clients[0], 'return (await io.fetchSockets()).length')) === clients.length);
  await settled(clients);
  assert.ok(clients.every(({ disconnects }) => disconnects.length === 0), 'no client was lost');
}

async function host(place, name, options, ...flags) {
  const folder = join(place.folder, name);
  mkdirSync(folder);
  const all = ['-w', '2', '--affinity', 'session', ...flags, '--', 'node', SERVER];
  const haft = new Haft({ folder, child: (...command) => place.child(...command) }, all, options);
  await haft.ready();
  return haft;
}

function two(place, url, ...flags) {
  return Promise.all(['one', 'two'].map((name) => host(place, name, {}, '--redis', url, ...flags)));
}

/** Clients on all workers of both, once these know each other. */
async function gather(place, hosts, areJoined = true) {
  const clients = await onAll(4, 16, async (home) => {
    const haft = hosts[Number(home.address.split('.')[3]) % 2];
    const client = await place.client(haft.url, home, { transports: ['websocket'] }).connected();
    return Object.assign(client, await client.hello(), { host: haft });
  });
  if (!areJoined) return clients;
  for (const client of one(clients)) {
    await until('the hosts to know each other', async () => (await run(client, 'return (await io.fetchSockets()).length')) === clients.length);
  }
  return clients;
}

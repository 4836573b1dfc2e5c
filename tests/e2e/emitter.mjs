// Programs outside haft that send to its clients, by the real @socket.io/redis-emitter over the Redis that haft shares rooms with.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { Emitter } from '@socket.io/redis-emitter';
import { createClient } from 'redis';

import { redis } from './lib/databases.mjs';
import { Haft } from './lib/haft.mjs';
import { homes } from './lib/home.mjs';
import { SERVER, gather, hearing, one, run } from './lib/node-rooms.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

program('Node: the clients of all workers of all hosts are reached, once', async (place) => {
  const { url } = await redis(place);
  const emitter = new Emitter(await connected(place, url));
  const hosts = await two(place, url, '--', 'node', SERVER, '{}');
  const clients = (await inTurns(hosts, 1, (haft) => gather(place, haft.url, { count: 6, workers: 2 }))).flat();
  const heard = hearing(clients, 'news');
  const hears = async (what, send, expected, ...values) => {
    heard.forEach((words) => words.splice(0));
    send();
    emitter.emit('news', 'end');
    await until(`the end of ${what}`, () => heard.every((words) => words.at(-1)?.[0] === 'end'));
    const own = heard.map((words) => words.slice(0, -1));
    assert.deepEqual(own.map((words) => words.length), clients.map((client) => Number(expected(client))), what);
    own.flat().forEach((words) => assert.deepEqual(words, values, what));
  };
  const bytes = [randomBytes(10), randomBytes(70_000)];
  const value = { z: 1, a: [null, 'äöü €', -1.5, 2 ** 40, { deep: bytes[0] }], time: '2026-02-28T23:59:59.123Z', '__proto__x': true };
  const sent = { ...value, time: new Date(value.time) };
  await hears('all', () => emitter.emit('news', sent, bytes[1], 7), () => true, value, bytes[1], 7);

  const [first, last] = [clients[0], clients.at(-1)];
  const members = clients.filter((_, at) => at % 2 === 0);
  for (const { sid } of members) emitter.in(sid).socketsJoin(['room', 'other']);
  await until('them to be in the room', async () => (await count(first, 'room')) === members.length);
  await hears('a room', () => emitter.to('room').emit('news', 1), (client) => members.includes(client), 1);
  await hears('two rooms', () => emitter.to(['room', last.sid]).emit('news', 1), (client) => members.includes(client) || client === last, 1);
  await hears('an exception', () => emitter.except('room').emit('news', 1), (client) => !members.includes(client), 1);
  await hears('volatile', () => emitter.volatile.emit('news', 1), () => true, 1);
  await hears('compressed', () => emitter.compress(false).to(last.sid).emit('news', 1), (client) => client === last, 1);
  await hears('another namespace', () => emitter.of('/other').emit('news', 1), () => false);
  emitter.in('room').socketsLeave('room');
  await until('them to have left', async () => (await count(first, 'room')) === 0);
  assert.equal(await count(first, 'other'), members.length);

  const told = hearing(clients, 'told');
  emitter.serverSideEmit('tell', { z: 1, a: 2 });
  await until('all servers to be told', () => told.every((words) => words.length === 1));
  assert.equal(JSON.stringify(told[0][0][0].payload), '{"z":1,"a":2}');
  assert.equal(new Set(told.map(([[{ pid }]]) => pid)).size, 4);

  clients.forEach(({ socket }) => socket.io.reconnection(false));
  emitter.in(last.sid).disconnectSockets(true);
  await until('its end', () => last.disconnects.length === 1);
  assert.equal(await run(first, 'return (await io.fetchSockets()).length'), clients.length - 1);
  for (const haft of hosts) assert.equal(await haft.total('haft_rooms_dropped_total'), 0);
  for (const haft of hosts) await haft.stop();
});

program('Node: what an emitter has sent meanwhile is made up for when a client is recovered', async (place) => {
  const { url } = await redis(place);
  const emitter = new Emitter(await connected(place, url));
  const options = JSON.stringify({ connectionStateRecovery: { maxDisconnectionDuration: 60_000 } });
  const haft = await host(place, 'one', '--redis', url, '-w', '2', '--affinity', 'session', '--', 'node', SERVER, options);
  const [client, ...others] = await gather(place, haft.url, { count: 6, workers: 2 });
  const [heard] = hearing([client], 'number');
  for (let n = 0; n < 6; n++) {
    emitter.emit('number', n);
    await until('all so far', () => heard.length === 2 * n + 1);
    client.socket.io.engine.close();
    emitter.emit('number', n);
    emitter.to('nobody').emit('number', n);
    const [another] = hearing([others[0]], 'passed');
    emitter.emit('passed');
    await until('it to have passed', () => another.length > 0);
    await until('what it has missed', () => heard.length === 2 * n + 2);
    assert.equal(client.socket.recovered, true, `turn ${n}`);
  }
  assert.deepEqual(heard.map(([n]) => n), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
  await haft.stop();
});

program('what is no emitter\'s is counted, said once, and disturbs nothing', async (place) => {
  const { url } = await redis(place);
  const client = await connected(place, url);
  const haft = await host(place, 'one', '--redis', url, '-w', '2', '--affinity', 'session', '--', 'node', SERVER, '{}');
  const clients = await gather(place, haft.url, { count: 6, workers: 2 });
  const heard = hearing(clients, 'news');
  await until('the link', async () => (await haft.total('haft_rooms_linked')) === 1);
  const hostile = [
    ['socket.io#/#', ''], ['socket.io#/#', 'x'.repeat(100_000)], ['socket.io#', Buffer.alloc(50_000, 0x91)],
    ['socket.io#/#', Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff])], ['socket.io-request#/#', '['.repeat(100_000)],
    ['socket.io-request#/#', '{"type":4}{'], ['socket.io-request#', '{"type":4,"opts":{}}'], ['socket.io#/#', Buffer.alloc(9 << 20, 0x93)],
    ['socket.io-request#/#', '{"uid":"Zw5","requestId":"1","type":0,"opts":{"rooms":[],"except":[]}}'],
  ];
  for (const [channel, payload] of hostile) await client.publish(channel, payload);
  for (let n = 0; n < 500; n++) await client.publish(n % 2 ? 'socket.io#/#' : 'socket.io-request#/#', randomBytes(n));
  await until('all to be counted', async () => (await haft.counts('haft_rooms_dropped_total', 'reason')).emitter === hostile.length + 500);
  new Emitter(client).emit('news', 'after');
  await until('all to hear what comes after', () => heard.every((words) => words.length === 1));
  assert.equal(haft.child.lines.filter((line) => line.includes('is not one of @socket.io/redis-emitter')).length, 1);
  assert.equal(await haft.total('haft_rooms_link_breaks_total'), 0);
  assert.equal(new Set((await haft.status()).slots.map(({ pid }) => pid)).size, 2);
  assert.equal(await run(clients[0], 'return (await io.fetchSockets()).length'), 6);
  await haft.stop();
});

program('built-in workers: a message to a room reaches its members on both hosts, by the emitters of their key', async (place) => {
  const { url } = await redis(place);
  const client = await connected(place, url);
  const [emitter, another] = [new Emitter(client, { key: 'chat' }), new Emitter(client)];
  const hosts = await two(place, url, '--redis-emitter', 'chat');
  const deaf = await host(place, 'deaf', '--redis', url, '--redis-prefix', 'deaf', '--redis-emitter', 'off', '-w', '1');
  await until('its link', async () => (await deaf.total('haft_rooms_linked')) === 1);
  const all = await inTurns(homes(13), 6, async (home, at) => {
    const { url: to } = at === 12 ? deaf : hosts[at % 2];
    const member = await place.client(to, home, { transports: at % 3 ? ['websocket'] : ['polling'] }).connected();
    await member.ask('join', { room: at % 4 < 2 ? 'lobby' : 'hall', name: `member ${at}` });
    return member;
  });
  const heard = hearing(all, 'message');
  another.to('lobby').emit('message', { text: 'of another application' });
  emitter.to('lobby').emit('message', { text: 'äöü', from: 'the weather' });
  emitter.emit('message', { text: 'to no room' });
  for (const room of ['lobby', 'hall']) emitter.to(room).emit('message', { text: 'end' });
  await until('the end', () => heard.slice(0, 12).every((words) => words.at(-1)?.[0].text === 'end'));
  const end = (room) => [{ room, id: 0, from: 'outside', text: 'end', host: '', slot: null }];
  const first = [{ room: 'lobby', id: 0, from: 'the weather', text: 'äöü', host: '', slot: null }];
  heard.slice(0, 12).forEach((words, at) => assert.deepEqual(words, at % 4 < 2 ? [first, end('lobby')] : [end('hall')]));
  assert.deepEqual(heard[12], []);
  for (const haft of hosts) assert.equal(await haft.total('haft_rooms_dropped_total'), 0);
  for (const haft of [...hosts, deaf]) await haft.stop();
});

function count(client, room) {
  return run(client, 'return (await io.in(args).fetchSockets()).length', room);
}

async function connected(place, url) {
  const client = createClient({ url });
  await client.connect();
  place.atEnd(() => client.destroy());
  return client;
}

async function host(place, name, ...flags) {
  const folder = join(place.folder, name);
  mkdirSync(folder);
  const haft = new Haft({ folder, child: (...command) => place.child(...command) }, flags);
  await haft.ready();
  return haft;
}

async function two(place, url, ...flags) {
  const hosts = await inTurns(['one', 'two'], 2, (name) => {
    return host(place, name, '-w', '2', '--affinity', 'session', '--redis', url, ...flags);
  });
  await until('the hosts to know each other', async () => {
    for (const haft of hosts) if ((await haft.total('haft_rooms_linked')) !== 1) return false;
    return true;
  });
  return hosts;
}

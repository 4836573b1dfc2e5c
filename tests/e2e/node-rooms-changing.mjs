// Workers that come and go, hang or start while they share rooms; and programs for which haft leaves rooms alone.

import assert from 'node:assert/strict';

import { Home, homes } from './lib/home.mjs';
import { file } from './lib/files.mjs';
import { chat, gather, hearing, members, one, run, settled } from './lib/node-rooms.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

program('the death of a worker is known to the others at once', async (place) => {
  const haft = await chat(place);
  const clients = await gather(place, haft.url);
  const [first, victim] = one(clients);
  const rest = clients.filter(({ pid }) => pid !== victim.pid);
  const lost = clients.filter(({ pid }) => pid === victim.pid);
  lost.forEach(({ socket }) => socket.io.reconnection(false));
  clients.forEach(({ socket }) => socket.on('question', (answer) => answer(1)));
  // Who waits for it when it dies, and who asks right afterwards.
  process.kill(victim.pid, 'SIGSTOP');
  const waiting = [
    run(first, 'return (await io.fetchSockets()).length'),
    run(first, 'return (await io.timeout(60000).emitWithAck("question")).length'),
    run(first, 'return (await io.serverSideEmitWithAck("ask")).length'),
  ];
  await run(first, '');
  process.kill(victim.pid, 'SIGKILL');
  assert.deepEqual(await Promise.all(waiting), [rest.length, rest.length, 1]);
  const [count, took] = await run(first, 'const began = performance.now(); const { length } = await io.fetchSockets(); return [length, performance.now() - began]');
  place.say(`fetchSockets after a SIGKILL took ${took.toFixed(1)} ms`);
  assert.equal(count, rest.length);
  await until('its replacement', async () => {
    const { slots } = await haft.status();
    return slots.every(({ pid, state }) => pid !== victim.pid && state === 'ready');
  });
  await members(haft, 3);
  await until('it to be heard', async () => (await run(first, 'return (await io.serverSideEmitWithAck("ask")).length')) === 2);
  await haft.stop();
});

program('old and new workers share rooms during a reload, and so do more of them or fewer', async (place) => {
  const haft = await chat(place, { workers: 2, flags: ['--drain-timeout', '60s'] });
  const clients = await gather(place, haft.url, { count: 6, workers: 2 });
  const old = clients.map(({ pid }) => pid);
  assert.equal((await haft.post('/reload')).status, 202);
  await until('the reload to be done', async () => (await haft.status()).reload?.state === 'done');
  await members(haft, 4);
  const newer = await inTurns(homes(6), 6, async (home) => {
    const client = await place.client(haft.url, home, { transports: ['websocket'] }).connected();
    return Object.assign(client, await client.hello());
  });
  assert.ok(newer.every(({ pid }) => !old.includes(pid)), 'new clients come to new workers');
  const everybody = [...clients, ...newer];
  for (const client of one(everybody)) await settled(everybody, client);
  assert.equal(await run(clients[0], 'return (await io.fetchSockets()).length'), 12);
  // The old workers go with their last sessions.
  clients.forEach((client) => client.close());
  await members(haft, 2);
  assert.equal(await run(newer[0], 'return (await io.fetchSockets()).length'), 6);

  assert.equal((await haft.post('/scale?workers=4')).status, 202);
  await members(haft, 4);
  const more = await inTurns(homes(40), 6, async (home) => {
    const client = await place.client(haft.url, home, { transports: ['websocket'] }).connected();
    return Object.assign(client, await client.hello());
  });
  assert.equal(new Set([...newer, ...more].map(({ pid }) => pid)).size, 4, 'every worker has clients');
  for (const client of one([...newer, ...more])) await settled([...newer, ...more], client);
  more.forEach((client) => client.close());
  newer.forEach((client) => client.close());
  await haft.stop();
});

program('nothing is lost or mixed up while all workers send at once', async (place) => {
  const haft = await chat(place);
  const clients = await gather(place, haft.url);
  const heard = hearing(clients, 'number');
  const count = 5_000;
  const code = 'for (let n = 0; n < args[1]; n++) { io.emit("number", args[0], n); if (n % 100 === 0) await new Promise(setImmediate); }';
  const senders = one(clients);
  await Promise.all(senders.map((client, at) => run(client, code, [at, count])));
  await until('all to hear all', () => heard.every((numbers) => numbers.length === senders.length * count));
  for (const numbers of heard) {
    for (const sender of senders.keys()) {
      const own = numbers.filter(([from]) => from === sender).map(([, n]) => n);
      assert.ok(own.every((n, at) => n === at), 'in the order of their sender');
    }
  }
  assert.equal(await haft.total('haft_rooms_dropped_total'), 0);
  await haft.stop();
});

program('a worker that does not read loses its own alone, and that is counted', async (place) => {
  const haft = await chat(place);
  const clients = await gather(place, haft.url);
  const [first, stopped] = one(clients);
  const awake = clients.filter(({ pid }) => pid !== stopped.pid);
  const heard = hearing(clients, 'much');
  process.kill(stopped.pid, 'SIGSTOP');
  const count = 60;
  for (let n = 0; n < count; n++) await run(first, 'io.emit("much", args, "x".repeat(900000))', n);
  const numbers = (client) => heard[clients.indexOf(client)].map(([n]) => n);
  await until('the others to hear all', () => awake.every((client) => numbers(client).length === count));
  const dropped = await haft.counts('haft_rooms_dropped_total', 'reason');
  assert.ok(dropped.unread > 0 && dropped.unread < count, JSON.stringify(dropped));
  process.kill(stopped.pid, 'SIGCONT');
  await until('it to hear the rest', () => numbers(stopped).length === count - dropped.unread);
  await settled(clients, first);
  assert.deepEqual(numbers(stopped), Array.from({ length: count - dropped.unread }, (_, n) => n), 'it hears what was not dropped');
  await haft.stop();
});

program('a program goes on without haft, each worker with its own clients', async (place) => {
  const haft = await chat(place, { workers: 2, flags: ['--drain-timeout', '60s'] });
  const clients = await gather(place, haft.url, { count: 6, workers: 2 });
  const [first] = clients;
  const own = clients.filter(({ pid }) => pid === first.pid);
  await haft.child.end('SIGKILL');
  await until('the others to be given up', async () => (await run(first, 'return (await io.fetchSockets()).length')) === own.length);
  await settled(own, first);
  assert.deepEqual(await run(first, 'return io.serverSideEmitWithAck("ask")'), []);
  clients.forEach((client) => client.close());
  await until('their end', () => [...haft.workers].every((pid) => !alive(pid)));
});

function alive(pid) {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

program('a client is recovered in another worker, with what all workers have sent meanwhile', async (place) => {
  const options = { connectionStateRecovery: { maxDisconnectionDuration: 60_000 } };
  const haft = await chat(place, { options });
  const clients = await gather(place, haft.url);
  const [first, ...others] = one(clients);
  const home = new Home('127.0.9.9');
  const client = await place.client(haft.url, home, { transports: ['websocket'] }).connected();
  Object.assign(client, await client.hello());
  const [heard] = hearing([client], 'number');
  await run(client, 'socket.join("room")');
  let number = 0;
  const workers = new Set([client.pid]);
  const say = async (from, room = 'io.to("room")') => run(from, `${room}.emit("number", args)`, number++);
  for (let round = 0; round < 8; round++) {
    // What it knows last may be from any worker, or for it alone.
    await say([first, ...others][round % 3]);
    if (round % 2 === 0) await say(client, 'socket');
    await until('all so far', () => heard.length === number);
    const { sid } = client;
    client.socket.io.engine.close();
    for (const from of [first, ...others]) {
      await say(from);
      await run(from, 'io.except("room").emit("number", "not for it")');
    }
    await until('its session', () => client.socket.connected && client.greeting?.recovered !== undefined);
    await until('what it has missed', () => heard.length === number);
    assert.equal(client.socket.recovered, true, `round ${round}`);
    const seen = await run(client, 'return { sid: socket.id, pid: process.pid, rooms: [...socket.rooms] }');
    assert.equal(seen.sid, sid);
    assert.ok(seen.rooms.includes('room'));
    workers.add(seen.pid);
  }
  const once = heard.map(([n]) => n).sort((one, other) => one - other);
  assert.deepEqual(once, Array.from({ length: number }, (_, n) => n), 'each once');
  assert.ok(workers.size > 1, 'it has been with several workers');
  // A packet for one client goes to no other worker.
  const before = await haft.total('haft_rooms_messages_total');
  for (let n = 0; n < 100; n++) await run(first, 'socket.emit("alone", 1)');
  assert.ok((await haft.total('haft_rooms_messages_total')) - before < 50);
  await haft.stop();
});

program('a program that has an adapter keeps it, and is given no link', async (place) => {
  const haft = await place.haft('-w', '2', '--node-serialization', 'advanced', '--', 'node', file('node-adapter-server.cjs'), file('node-adapter-own.cjs'));
  const clients = await inTurns(homes(8), 8, async (home) => {
    const client = await place.client(haft.url, home, { transports: ['websocket'] }).connected();
    return Object.assign(client, await client.hello());
  });
  await until('the adapters to know each other', async () => (await clients[0].ask('sockets'))[0].value?.length === 8);
  assert.equal(await haft.total('haft_rooms_members'), 0);
  assert.equal(await haft.total('haft_rooms_messages_total'), 0);
  await haft.stop();
});

for (const flags of [['--rooms', 'off'], ['--no-preload']]) {
  program(`${flags.join(' ')}: each worker has rooms of its own`, async (place) => {
    const haft = await chat(place, { workers: 2, affinity: 'ip', flags });
    const clients = await gather(place, haft.url, { count: 8, workers: 2 });
    const own = clients.filter(({ pid }) => pid === clients[0].pid);
    assert.equal(await run(clients[0], 'return (await io.fetchSockets()).length'), own.length);
    assert.doesNotMatch(haft.child.lines.join('\n'), /rooms are shared/);
    await haft.stop();
  });
}

program('one worker has no peer, until there are two', async (place) => {
  const haft = await chat(place, { workers: 1 });
  const clients = await gather(place, haft.url, { count: 3, workers: 1 });
  await settled(clients);
  assert.equal(await haft.total('haft_rooms_messages_total'), 0);
  assert.doesNotMatch(haft.child.lines.join('\n'), /rooms are shared/);
  assert.equal((await haft.post('/scale?workers=2')).status, 202);
  await members(haft, 2);
  const more = await inTurns(homes(40), 6, async (home) => {
    const client = await place.client(haft.url, home, { transports: ['websocket'] }).connected();
    return Object.assign(client, await client.hello());
  });
  assert.equal(new Set([...clients, ...more].map(({ pid }) => pid)).size, 2);
  await settled([...clients, ...more], clients[0]);
  await haft.child.heard(/rooms are shared/);
  await haft.stop();
});

program('Socket.IO 2 and 3 are reported as too old, once, and go on', async (place) => {
  for (const name of ['socket.io-2', 'socket.io-3']) {
    const haft = await place.haft('-w', '2', '--', 'node', file('node-old-server.cjs'), name);
    await haft.child.heard(/the program's Socket.IO is too old to share rooms: .*npm install socket.io@4/);
    assert.equal(haft.child.lines.filter((line) => line.includes('too old to share rooms')).length, 1);
    assert.equal((await fetch(`${haft.url}/socket.io/?EIO=3&transport=polling`)).status, name === 'socket.io-2' ? 200 : 400);
    await haft.child.end();
  }
});

program('the first Socket.IO 4 shares rooms, too', async (place) => {
  const haft = await chat(place, { workers: 2, env: ['SOCKET_IO=socket.io-4.0'] });
  const clients = await gather(place, haft.url, { count: 6, workers: 2 });
  for (const client of one(clients)) await settled(clients, client);
  assert.equal(await run(clients[0], 'return (await io.fetchSockets()).length'), 6);
  await run(clients[0], 'io.socketsJoin("room")');
  assert.equal(await run(clients[0], 'return (await io.in("room").allSockets()).size'), 6);
  await haft.stop();
});

// Socket.IO programs for one process on several workers: what they send to many reaches the clients of all.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';

import { MODULE, SERVER, TSX, TYPESCRIPT, chat, gather, hearing, members, one, run, settled } from './lib/node-rooms.mjs';
import { versions } from './lib/node-versions.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const PAYLOADS = [
  'äöü €', 0, null, { a: [1, { b: 'c' }], 'key with "quotes"': '\u2028' }, randomBytes(10), [randomBytes(3_000), 'x'],
  { deep: [{ bytes: randomBytes(100_000) }], text: 'y'.repeat(200_000) },
];

program('all clients are reached from every worker, with what was sent', async (place) => {
  const haft = await chat(place);
  const clients = await gather(place, haft.url);
  const heard = hearing(clients, 'all');
  for (const [at, client] of one(clients).entries()) {
    for (const payload of PAYLOADS) await run(client, 'io.emit("all", args, 7)', payload);
    // The order is kept for each sender, not among senders.
    await until('all to receive everything', () => heard.every((all) => all.length === (at + 1) * PAYLOADS.length));
  }
  for (const all of heard) {
    assert.deepEqual(all, [...PAYLOADS, ...PAYLOADS, ...PAYLOADS].map((payload) => [payload, 7]));
  }
  assert.equal(await haft.total('haft_rooms_dropped_total'), 0);
  assert.match(haft.child.lines.join('\n'), /rooms are shared: what the program sends by Socket.IO/);
  await haft.stop();
});

program('rooms, exceptions and flags choose among the clients of all workers', async (place) => {
  const haft = await chat(place);
  const clients = await gather(place, haft.url);
  const inRoom = clients.filter((_, at) => at % 2 === 0);
  for (const client of inRoom) await run(client, 'socket.join("room")');
  const heard = hearing(clients, 'some');
  const hears = async (what, code, expected) => {
    heard.forEach((words) => words.splice(0));
    await run(clients[0], code, clients.at(-1).sid);
    await settled(clients);
    assert.deepEqual(heard.map((words) => words.length), clients.map((client) => Number(expected(client))), what);
  };
  const [first, last] = [clients[0], clients.at(-1)];
  await hears('a room', 'io.to("room").emit("some")', (client) => inRoom.includes(client));
  await hears('two rooms once', 'io.to("room").to(args).emit("some")', (client) => inRoom.includes(client) || client === last);
  await hears('an exception', 'io.except("room").emit("some")', (client) => !inRoom.includes(client));
  await hears('all but the sender', 'socket.broadcast.emit("some")', (client) => client !== first);
  await hears('a room but the sender', 'socket.to("room").emit("some")', (client) => inRoom.includes(client) && client !== first);
  await hears('one by its id', 'io.to(args).emit("some")', (client) => client === last);
  await hears('volatile', 'io.volatile.emit("some")', () => true);
  await hears('compressed', 'io.compress(true).emit("some")', () => true);
  await hears('local', 'io.local.emit("some")', ({ pid }) => pid === first.pid);
  await hears('an empty room', 'io.to("nobody").emit("some")', () => false);
  // As with one process: what is done after a broadcast does not change its receivers.
  await hears('before leaving', 'io.to("room").emit("some"); socket.leave("room")', (client) => inRoom.includes(client));
  await hears('as it was', 'const x = [1]; io.emit("some", x); x.push(2)', () => true);
  assert.ok(heard.every(([[value]]) => value.length === 1), 'as it was when it was sent');
  await haft.stop();
});

program('sockets of all workers are found, moved and disconnected', async (place) => {
  const haft = await chat(place);
  const clients = await gather(place, haft.url, { auth: { name: 'somebody' } });
  const ids = clients.map(({ sid }) => sid).sort();
  for (const client of one(clients)) {
    const found = await run(client, 'return (await io.fetchSockets()).map(({ id, data, rooms, handshake }) => ({ id, data, rooms: [...rooms], auth: handshake.auth }))');
    assert.deepEqual(found.map(({ id }) => id).sort(), ids);
    for (const { id, data, rooms, auth } of found) {
      assert.deepEqual([data, rooms, auth], [{ name: 'somebody' }, [id], { name: 'somebody' }]);
    }
    assert.deepEqual((await run(client, 'return [...await io.allSockets()]')).sort(), ids);
  }
  const [first, last] = [clients[0], clients.find(({ pid }) => pid !== clients[0].pid)];
  const count = (room) => run(first, 'return (await io.in(args).fetchSockets()).length', room);
  await run(first, 'io.socketsJoin(["a", "b"])');
  assert.deepEqual([await count('a'), await count('b')], [clients.length, clients.length]);
  await run(first, 'io.in(args).socketsLeave("a")', last.sid);
  assert.equal(await count('a'), clients.length - 1);
  const remote = 'const [it] = await io.in(args).fetchSockets(); ';
  await run(first, `${remote} it.join("c")`, last.sid);
  assert.equal(await count('c'), 1);
  last.socket.on('question', (answer) => answer('mine'));
  assert.equal(await run(first, `${remote} return it.timeout(5000).emitWithAck("question")`, last.sid), 'mine');
  // A circle cannot be sent; what else there is can.
  await run(last, 'socket.data.circle = socket.data; socket.data.big = 1n');
  assert.deepEqual(await run(first, `${remote} return it.data`, last.sid), { name: 'somebody' });
  clients.forEach(({ socket }) => socket.io.reconnection(false));
  await run(first, 'io.in(args).disconnectSockets()', last.sid);
  await until('its end', () => last.disconnects.length === 1);
  assert.deepEqual(last.disconnects, ['io server disconnect']);
  assert.equal((await run(first, 'return (await io.fetchSockets()).length')), clients.length - 1);
  await run(first, 'socket.join("stays"); io.except("stays").disconnectSockets(true)');
  await until('the end of all others', () => clients.filter(({ socket }) => socket.connected).length === 1);
  await haft.stop();
});

program('servers talk to each other, with answers', async (place) => {
  const haft = await chat(place);
  const clients = await gather(place, haft.url);
  const told = hearing(clients, 'told');
  for (const client of one(clients)) {
    const answers = await run(client, 'return io.serverSideEmitWithAck("ask", args)', { bytes: randomBytes(9), n: 1 });
    const others = one(clients).filter(({ pid }) => pid !== client.pid);
    assert.deepEqual(answers.map(({ pid }) => pid).sort(), others.map(({ pid }) => pid).sort());
    assert.ok(answers.every(({ payload }) => payload.n === 1 && payload.bytes.length === 9));
  }
  await run(clients[0], 'io.serverSideEmit("tell", args)', 'a word');
  await until('the others to be told', () => told.every((words, at) => words.length === Number(clients[at].pid !== clients[0].pid)));
  await assert.rejects(run(clients[0], 'return io.serverSideEmitWithAck("silent")'), /timeout reached: missing 2 responses/);
  // What the program throws is its own: it ends by it as it would alone.
  const [, other] = one(clients);
  await run(clients[0], 'io.serverSideEmit("throws")');
  await haft.child.heard(/^Error: of the program/, 2);
  await until('its replacement', async () => (await haft.status()).slots.every(({ pid, state }) => pid !== other.pid && state === 'ready'));
  clients.forEach((client) => client.close());
  await haft.stop();
});

program('acknowledgements of all clients are waited for, and no longer than is said', async (place) => {
  const haft = await chat(place);
  const clients = await gather(place, haft.url);
  const bytes = randomBytes(50);
  clients.forEach(({ socket }, at) => socket.on('question', (...args) => args.pop()(at)));
  for (const client of one(clients)) {
    const answers = await run(client, 'return io.timeout(20000).emitWithAck("question", args)', bytes);
    assert.deepEqual(answers.sort(), clients.map((_, at) => at));
  }
  assert.deepEqual(await run(clients[0], 'return io.to("nobody").timeout(20000).emitWithAck("question")'), []);
  assert.equal((await run(clients[0], 'return io.local.timeout(20000).emitWithAck("question")')).length, clients.filter(({ pid }) => pid === clients[0].pid).length);
  const silent = clients.at(-1);
  silent.socket.off('question');
  const failure = await run(clients[0], 'return io.timeout(1000).emitWithAck("question", 1)').catch((error) => error);
  assert.match(failure.message, /operation has timed out/);
  assert.deepEqual(failure.responses.sort(), clients.map((_, at) => at).slice(0, -1), 'those who have answered');
  // A client that has not answered is not remembered for ever.
  await until('it to be forgotten', async () => (await run(silent, 'return socket.acks.size')) === 0);
  await haft.stop();
});

program('what holds between servers with an adapter holds between workers', async (place) => {
  const haft = await chat(place);
  const clients = await gather(place, haft.url, { auth: { name: 'somebody' } });
  const workers = one(clients);
  const [first, second, third] = workers;
  // Clients answer with bytes, and one of another worker alone is asked, by its own worker or from afar.
  clients.forEach(({ socket }, at) => socket.on('bytes', (answer) => answer(Buffer.from([at, 255]))));
  const answers = await run(first, 'return io.timeout(20000).emitWithAck("bytes")');
  assert.deepEqual(answers.map((bytes) => bytes[0]).sort(), clients.map((_, at) => at));
  assert.ok(answers.every((bytes) => Buffer.isBuffer(bytes) && bytes[1] === 255));
  assert.deepEqual(await run(second, 'return socket.emitWithAck("bytes")'), Buffer.from([clients.indexOf(second), 255]));

  // Rooms by rooms.
  const inside = (room) => Promise.all(clients.map((client) => run(client, 'return socket.rooms.has(args)', room)));
  const some = clients.map((_, at) => at % 2 === 0);
  for (const [at, client] of clients.entries()) await run(client, 'socket.join(args)', some[at] ? ['odd', 'all'] : ['all']);
  await run(first, 'io.in("odd").socketsJoin("new")');
  await settled(clients, first);
  assert.deepEqual(await inside('new'), some);
  await run(second, 'io.in("odd").socketsLeave("all")');
  await settled(clients, second);
  assert.deepEqual(await inside('all'), some.map((is) => !is));
  await run(third, 'io.socketsLeave("odd")');
  await settled(clients, third);
  assert.ok((await inside('odd')).every((is) => !is));

  // What is known of a socket from afar is what its own worker knows.
  const own = await run(second, 'socket.data = "text"; return JSON.parse(JSON.stringify(socket.handshake))');
  const there = await run(first, 'const [it] = await io.in(args).fetchSockets(); return { handshake: it.handshake, data: it.data, rooms: [...it.rooms] }', second.sid);
  assert.deepEqual(there, { handshake: own, data: 'text', rooms: await run(second, 'return [...socket.rooms]') });
  const local = await run(first, 'return (await io.local.fetchSockets()).map(({ id }) => id)');
  assert.deepEqual(local.sort(), clients.filter(({ pid }) => pid === first.pid).map(({ sid }) => sid).sort());

  // Those who have answered are named where another has not, and who leaves is not waited for.
  await run(second, 'io.on("half", (answer) => answer(2))');
  await run(third, 'io.on("half", () => {})');
  const failure = await run(first, 'return io.serverSideEmitWithAck("half")').catch((error) => error);
  assert.match(failure.message, /timeout reached: missing 1 responses/);
  assert.deepEqual(failure.responses, [2]);
  clients.forEach(({ socket }) => socket.io.reconnection(false));
  await run(second, 'io.on("leaves", (answer) => answer(2))');
  await run(third, 'io.on("leaves", () => process.kill(process.pid, "SIGKILL"))');
  assert.deepEqual(await run(first, 'return io.serverSideEmitWithAck("leaves")'), [2]);

  // What was sent before the end comes before it.
  const left = clients.filter(({ pid }) => pid !== third.pid);
  const order = left.map(() => []);
  left.forEach(({ socket }, at) => {
    socket.on('bye', () => order[at].push('bye'));
    socket.on('disconnect', (reason) => order[at].push(reason));
  });
  await run(first, 'setImmediate(() => { io.emit("bye"); io.disconnectSockets(true); })');
  await until('the end of all', () => order.every((events) => events.length === 2));
  for (const events of order) assert.deepEqual(events, ['bye', 'io server disconnect']);
  await haft.stop();
});

program('namespaces and servers are distinguished', async (place) => {
  const haft = await chat(place);
  const groups = {};
  for (const [name, path] of [['', '/socket.io/'], ['/other', '/socket.io/'], ['/dynamic-1', '/socket.io/'], ['', '/second/']]) {
    groups[`${path} ${name}`] = await gather(place, `${haft.url}${name}`, { path });
  }
  const all = Object.values(groups).flat();
  const heard = hearing(all, 'all');
  for (const [name, clients] of Object.entries(groups)) {
    heard.forEach((words) => words.splice(0));
    await run(clients[0], 'nsp.emit("all", 1)');
    for (const others of Object.values(groups)) await settled(others);
    assert.deepEqual(heard.map((words) => words.length), all.map((client) => Number(clients.includes(client))), name);
    assert.equal(await run(clients[0], 'return (await nsp.fetchSockets()).length'), clients.length, name);
  }
  // A namespace that only one worker has.
  const [alone] = await gather(place, `${haft.url}/dynamic-2`, { count: 1, workers: 1 });
  assert.equal(await run(alone, 'return (await nsp.fetchSockets()).length'), 1);
  assert.deepEqual(await run(alone, 'return nsp.serverSideEmitWithAck("ask")'), []);
  alone.socket.on('question', (answer) => answer(1));
  assert.deepEqual(await run(alone, 'return nsp.timeout(20000).emitWithAck("question")'), [1]);
  await haft.stop();
});

program('all clients are reached where hooks load the program (tsx)', async (place) => {
  const haft = await chat(place, { workers: 2, node: TSX, server: TYPESCRIPT });
  const clients = await gather(place, haft.url, { count: 6, workers: 2 });
  const heard = hearing(clients, 'all');
  for (const client of one(clients)) await run(client, 'io.emit("all", args)', PAYLOADS);
  await until('all to hear it', () => heard.every((all) => all.length === 2));
  assert.equal(await run(clients[0], 'return (await io.fetchSockets()).length'), 6);
  await haft.stop();
});

for (const { name, path } of versions) {
  for (const [kind, server] of [['CommonJS', SERVER], ['ESM', MODULE]]) {
    for (const serialization of ['json', 'advanced']) {
      program(`${name}, ${kind}, ${serialization}: all clients are reached`, async (place) => {
        const flags = ['--node-serialization', serialization];
        const haft = await chat(place, { workers: 2, node: path, server, flags });
        const clients = await gather(place, haft.url, { count: 6, workers: 2 });
        const heard = hearing(clients, 'all');
        for (const client of one(clients)) await run(client, 'io.emit("all", args)', PAYLOADS);
        await until('all to hear it', () => heard.every((all) => all.length === 2));
        for (const [[first], [second]] of heard) assert.deepEqual([first, second], [PAYLOADS, PAYLOADS]);
        assert.equal(await run(clients[0], 'return (await io.fetchSockets()).length'), 6);
        assert.equal((await run(clients[0], 'return io.serverSideEmitWithAck("ask")')).length, 1);
        await haft.stop();
        const complaints = haft.child.lines.filter((line) => /haft: |Error|Warning/.test(line));
        assert.deepEqual(complaints, []);
      });
    }
  }
}

// Programs with an adapter for several servers, on two haft of two workers each, as on two hosts: haft leaves them alone.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { postgres, redis } from './lib/databases.mjs';
import { Haft } from './lib/haft.mjs';
import { file } from './lib/files.mjs';
import { hearing, onAll, one, run, settled } from './lib/node-rooms.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const DATABASES = { redis, streams: redis, postgres };

for (const kind of Object.keys(DATABASES)) {
  program(`${kind}: all clients are reached on both hosts`, async (place) => {
    const hosts = await two(place, kind);
    const clients = await gather(place, hosts);
    const heard = hearing(clients, 'all');
    for (const client of one(clients)) await run(client, 'io.emit("all", args)', { text: 'äöü', bytes: randomBytes(20_000) });
    await until('all to hear all', () => heard.every((words) => words.length === 4));
    for (const client of one(clients)) {
      assert.equal(await run(client, 'return (await io.fetchSockets()).length'), clients.length);
    }
    const away = clients.find(({ pid }) => pid !== clients[0].pid);
    await run(clients[0], 'io.in(args).socketsJoin("room")', away.sid);
    await until('it to have joined', async () => (await run(away, 'return socket.rooms.has("room")')));
    clients.forEach(({ socket }, at) => socket.on('question', (answer) => answer(at)));
    const answers = await run(clients[0], 'return io.timeout(20000).emitWithAck("question")');
    assert.deepEqual(answers.sort((x, y) => x - y), clients.map((_, at) => at));
    assert.equal((await run(clients[0], 'return io.serverSideEmitWithAck("ask")')).length, 3);
    for (const haft of hosts) assert.equal(await haft.total('haft_rooms_members'), 0, 'haft has no part in it');
    clients.forEach((client) => client.close());
    for (const haft of hosts) await haft.stop();
  });
}

program('streams: a client is recovered on the other host, with what it has missed', async (place) => {
  const hosts = await two(place, 'streams');
  const clients = await gather(place, hosts);
  const [client] = clients;
  const sender = clients.find(({ pid }) => pid !== client.pid);
  const [heard] = hearing([client], 'number');
  await run(client, 'socket.join("room")');
  for (let n = 0; n < 6; n++) {
    await run(sender, 'io.to("room").emit("number", args)', n);
    await until('all so far', () => heard.length === 2 * n + 1);
    const [here, { sid }] = [client.socket.io.uri, client];
    // It must not be back before its server has written its session down.
    client.home.agent.hold();
    client.socket.io.engine.close();
    client.socket.io.uri = hosts.map(({ url }) => url).find((url) => url !== here);
    await until('the server to know', async () => (await run(sender, 'return (await io.fetchSockets()).length')) === clients.length - 1);
    await run(sender, 'io.to("room").emit("number", args)', n);
    client.home.agent.release();
    await until('what it has missed', () => heard.length === 2 * n + 2);
    assert.equal(client.socket.recovered, true, `turn ${n}`);
    assert.equal(client.socket.id, sid);
  }
  assert.deepEqual(heard.map(([n]) => n), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], 'each once, in order');
  clients.forEach((each) => each.close());
  for (const haft of hosts) await haft.stop();
});

/** Two haft with the program, over one database. */
async function two(place, kind) {
  const { url } = await DATABASES[kind](place);
  return Promise.all(['one', 'two'].map(async (name) => {
    const folder = join(place.folder, name);
    mkdirSync(folder);
    const flags = ['-w', '2', '--affinity', 'session', '--', 'node', file('own-adapter-server.cjs'), kind, url];
    const haft = new Haft({ folder, child: (...command) => place.child(...command) }, flags);
    await haft.ready();
    return haft;
  }));
}

/** Clients on all workers of both, once these know each other. */
async function gather(place, hosts) {
  const clients = await onAll(4, 16, async (home) => {
    const { url } = hosts[Number(home.address.split('.')[3]) % 2];
    const client = await place.client(url, home, { transports: ['websocket'] }).connected();
    return Object.assign(client, await client.hello());
  });
  for (const client of one(clients)) {
    await until('the servers to know each other', async () => (await run(client, 'return (await io.fetchSockets()).length')) === clients.length);
  }
  await settled(clients);
  return clients;
}

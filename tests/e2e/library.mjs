// A program of one's own as the worker: the example that is built on axum, socketioxide and haft's library.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { fetchText } from './lib/fetch.mjs';
import { homes, opened } from './lib/home.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

/** `cargo test` builds the examples too. */
const FOLDER = process.env.EXAMPLES ?? fileURLToPath(new URL('../../target/debug/examples', import.meta.url));
const EXAMPLE = `${FOLDER}/socketio`;

program("an application on haft's library serves real clients", async (place) => {
  assert.ok(existsSync(EXAMPLE), `${EXAMPLE} is missing: cargo build --examples makes it`);
  const haft = await place.haft('-w', '3', '--', EXAMPLE);
  const sources = homes(20);
  const slotOf = (home) => fetchText(new URL('/', haft.url), home);

  const slots = await inTurns(sources, 10, async (home, index) => {
    const before = await slotOf(home);
    const [one, other] = [['polling'], ['polling', 'websocket']].map((transports) => place.client(haft.url, home, { transports }));
    await Promise.all([one.connected(), other.connected()]);
    await other.upgraded();
    const sent = { from: home.address, index };
    for (const client of [one, other]) assert.deepEqual(await client.ask('echo', sent), [sent]);
    // What is said goes to all, so others are heard too.
    const said = [];
    other.socket.on('said', (text) => said.push(text));
    one.socket.emit('say', home.address);
    await until(`${home.address} to hear its neighbour`, () => said.includes(home.address));
    assert.equal(await slotOf(home), before, 'the same slot afterwards');
    assert.deepEqual([...one.errors, ...other.errors], []);
    return before;
  });
  assert.deepEqual([...new Set(slots)].sort(), ['slot 0\n', 'slot 1\n', 'slot 2\n'], 'all slots serve');

  place.clients.forEach((client) => client.close());
  assert.equal((await haft.settled(() => opened(sources))).refused, 0);
  await haft.stop();
});

program('rooms of a Rust worker reach the clients of all workers, of those that live', async (place) => {
  const haft = await place.haft('-w', '3', '--affinity', 'session', '--', EXAMPLE);
  const clients = await inTurns(homes(9), 6, async (home) => {
    const client = await place.client(haft.url, home, { transports: ['websocket'] }).connected();
    return Object.assign(client, { slot: (await fetchText(haft.url, home)) });
  });
  const count = (client) => client.ask('count').then(([number]) => number);
  for (const client of clients) assert.equal(await count(client), clients.length);
  clients.forEach(({ socket }, at) => socket.on('question', (question, answer) => answer(`${question} ${at}`)));
  const [answers] = await clients[0].ask('ask all', 'who?');
  assert.deepEqual(answers.flat().sort(), clients.map((_, at) => `who? ${at}`));

  // A room: those that are in it get what is sent to it, in order; those that have left do not.
  const heard = clients.map(() => []);
  clients.forEach(({ socket }, at) => socket.on('said', (text) => heard[at].push(text)));
  await Promise.all(clients.map((client) => client.ask('join', 'lounge')));
  await clients[8].ask('leave', 'lounge');
  // No more at once than the engine keeps for a client (128).
  const words = Array.from({ length: 100 }, (_, number) => `word ${number}`);
  for (const word of words) clients[0].socket.emit('say to', 'lounge', word);
  await until('the members to hear all', () => heard.slice(0, 8).every((said) => said.length >= words.length));
  for (const said of heard.slice(0, 8)) assert.deepEqual(said, words);
  assert.deepEqual(heard[8], [], 'it has left');

  // A dead worker is not waited for, and its replacement belongs to it at once.
  clients.forEach(({ socket }) => socket.io.reconnectionDelay(50));
  const { slots } = await haft.status();
  process.kill(slots[1].pid, 'SIGKILL');
  await until('all clients to be back, and counted everywhere', async () => {
    if (!clients.every(({ socket }) => socket.connected)) return false;
    const counts = await Promise.all(clients.map(count));
    return counts.every((number) => number === clients.length);
  });
  await until('its replacement to share rooms', async () => (await haft.total('haft_rooms_members')) === 3);
  await haft.stop();
});

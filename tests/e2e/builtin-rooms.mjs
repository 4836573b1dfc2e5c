// The chat of the built-in worker on several workers and hosts: a room is one room.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { redis } from './lib/databases.mjs';
import { Haft } from './lib/haft.mjs';
import { homes } from './lib/home.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

const ROOM = 'lobby';

/** Clients on all workers, in one room. */
async function gather(place, urls, workers, count = 12) {
  const members = await inTurns(homes(count), 6, async (home, index) => {
    const client = place.client(urls[index % urls.length], home, { transports: index % 3 ? ['websocket'] : ['polling'] });
    const member = { client, index, heard: [] };
    client.socket.on('message', (message) => member.heard.push(message));
    client.socket.on('members', (news) => (member.news = news));
    // A client that comes back joins again, as the page does.
    client.socket.on('connect', () => client.ask('join', { room: ROOM, name: `member ${index}` }).catch(() => {}));
    await client.connected();
    member.at = await client.hello();
    return member;
  });
  assert.equal(new Set(members.map(({ at }) => at.pid)).size, workers, 'every worker has members');
  return members;
}

/** All know how many they are. */
function counted(members, number = members.length) {
  return until(`${number} members for all`, () => members.every(({ client, news }) => client.socket.connected && news?.members === number));
}

/** Each sends something, and all others get it, once. */
async function talk(members) {
  members.forEach((member) => (member.heard = []));
  await Promise.all(members.map(async ({ client, index }) => {
    const [answer] = await client.ask('message', { room: ROOM, text: `from ${index}` });
    assert.ok(answer.ok, JSON.stringify(answer));
    assert.equal(answer.members, members.length);
    assert.equal(answer.missed, 0);
  }));
  await until('all to hear all', () => members.every(({ heard }) => heard.length >= members.length - 1));
  for (const { heard, index } of members) {
    const expected = members.filter((other) => other.index !== index).map((other) => `from ${other.index}`);
    assert.deepEqual(heard.map(({ text }) => text).sort(), expected.sort());
  }
}

program('a room reaches the members on all workers, through a death and a reload', async (place) => {
  const haft = await place.haft('-w', '3', '--affinity', 'session');
  const members = await gather(place, [haft.url], 3);
  await counted(members);
  await talk(members);
  for (const { heard } of members) {
    for (const { from, slot, host } of heard) {
      const sender = members[Number(from.split(' ')[1])].at;
      assert.deepEqual([slot, host], [sender.slot, sender.host], 'a message says where its sender is');
    }
  }
  const { at } = members[0].news;
  assert.deepEqual(at.map(({ slot }) => slot), [0, 1, 2]);
  assert.equal(at.reduce((sum, { members: here }) => sum + here, 0), members.length);

  // One sender's words keep their order.
  members.forEach((member) => (member.heard = []));
  const words = Array.from({ length: 200 }, (_, number) => `word ${number}`);
  await Promise.all(words.map((text) => members[1].client.ask('message', { room: ROOM, text })));
  const others = members.filter(({ index }) => index !== 1);
  await until('all to hear all words', () => others.every(({ heard }) => heard.length >= words.length));
  for (const { heard } of others) assert.deepEqual(heard.map(({ text }) => text), words);

  await members[2].client.ask('leave', { room: ROOM });
  const left = members.filter(({ index }) => index !== 2);
  await counted(left, members.length - 1);
  await members[2].client.ask('join', { room: ROOM });
  await counted(members);

  process.kill(members[0].at.pid, 'SIGKILL');
  await until('the death to be noticed', () => members[0].client.disconnects.length > 0);
  await counted(members);
  await talk(members);
  await haft.post('/reload');
  await until('all to be with new workers', async () => (await haft.status()).slots.every(({ generation, state }) => generation === 1 && state === 'ready'));
  await counted(members);
  await talk(members);
  assert.ok((await haft.total('haft_rooms_messages_total')) > 0);
  assert.equal(await haft.total('haft_rooms_dropped_total'), 0);
  await haft.stop();
});

program('with --rooms off a room is that of its worker', async (place) => {
  const haft = await place.haft('-w', '2', '--affinity', 'session', '--rooms', 'off');
  const members = await gather(place, [haft.url], 2);
  const here = members.filter(({ at }) => at.slot === members[0].at.slot);
  await counted(here, here.length);
  await talk(here);
  await haft.stop();
});

program('over Redis a room reaches the members on both hosts, and one that dies has none any more', async (place) => {
  const { url } = await redis(place);
  const hafts = await inTurns(['A', 'B'], 2, async (id) => {
    const folder = join(place.folder, id);
    mkdirSync(folder);
    const flags = ['-w', '2', '--affinity', 'session', '--host-id', id, '--tag-key', 'a secret of some length', '--redis', url];
    const haft = new Haft({ folder, child: (...command) => place.child(...command) }, [...flags, '--drain-timeout', '1s']);
    await haft.ready();
    return haft;
  });
  const members = await gather(place, hafts.map((haft) => haft.url), 4, 16);
  await counted(members);
  await talk(members);
  assert.deepEqual([...new Set(members[0].news.at.map(({ host }) => host))], ['A', 'B']);

  const here = members.filter(({ at }) => at.host === 'A');
  members.forEach(({ client }) => client.socket.io.reconnection(false));
  await hafts[1].child.end('SIGKILL');
  await counted(here, here.length);
  await talk(here);
  await hafts[0].stop();
});

// Clients on all workers of a Socket.IO program that knows of one process only.

import assert from 'node:assert/strict';

import { homes } from './home.mjs';
import { file } from './files.mjs';
import { inTurns, until } from './wait.mjs';

export const SERVER = file('node-rooms-server.cjs');
export const MODULE = file('node-rooms-server.mjs');
/** What runs TypeScript by hooks into Node's loader, and a program for it. */
export const [TSX, TYPESCRIPT] = [file('../node_modules/.bin/tsx'), file('node-rooms-server.mts')];

/** Most clients that come beside those that were asked for, until every worker has some. */
const MORE = 60;

/** haft with the program, on these flags; `options` are those of its Server. */
export function chat(place, { workers = 3, affinity = 'session', flags = [], node = 'node', server = SERVER, options = {}, env = [] } = {}) {
  const command = env.length > 0 ? ['env', ...env, node] : [node];
  return place.haft('-w', `${workers}`, '--affinity', affinity, ...flags, '--', ...command, server, JSON.stringify(options));
}

/** Clients of every worker, with `pid` of theirs. */
export async function gather(place, url, { count = 9, workers = 3, ...options } = {}) {
  const connect = async (home) => {
    const client = place.client(url, home, { transports: ['websocket'], ...options });
    await client.connected();
    return Object.assign(client, await client.hello());
  };
  const [first, more] = [homes(count), homes(count + MORE).slice(count)];
  const clients = await inTurns(first, 6, connect);
  const pids = () => new Set(clients.map(({ pid }) => pid));
  // On a busy machine a worker that is late is passed over for a while.
  while (pids().size < workers && more.length > 0) {
    const another = await connect(more.shift());
    const isNew = !pids().has(another.pid);
    const surplus = clients.findIndex(({ pid }, at) => clients.findIndex((other) => other.pid === pid) !== at);
    const [leaving] = isNew ? clients.splice(surplus, 1, another) : [another];
    const neighbour = clients.find(({ pid }) => pid === leaving.pid);
    leaving.close();
    await until('its end', async () => !(await run(neighbour, 'return nsp.sockets.has(args)', leaving.sid)));
  }
  assert.equal(pids().size, workers, 'every worker has clients');
  return clients;
}

/**
 * Clients that `come(home)` yields, with `pid` of theirs, until each of so many workers has one: at least `least`. A worker
 * that the machine keeps waiting gets fewer clients than others, and may have none at first.
 */
export async function onAll(workers, least, come) {
  const places = homes(8 * least);
  const clients = await inTurns(places.splice(0, least), 8, come);
  while (one(clients).length < workers && places.length > 0) clients.push(await come(places.shift()));
  assert.equal(one(clients).length, workers, 'every worker has clients');
  return clients;
}

/** One client of each worker. */
export function one(clients) {
  return [...new Map(clients.map((client) => [client.pid, client])).values()];
}

/** Has the client's worker run a line, and gives what it yields. */
export async function run(client, code, args) {
  const [{ value, error, responses }] = await client.ask('run', code, args);
  if (error) throw Object.assign(new Error(error), { responses });
  return value;
}

/** What each of the clients has heard of an event, from now on. */
export function hearing(clients, event) {
  const heard = clients.map(() => []);
  clients.forEach(({ socket }, at) => socket.on(event, (...args) => heard[at].push(args)));
  return heard;
}

/** Has `client`'s worker send a word to all clients, and waits until all `clients` have got it: what was sent before it
 * has come by then, since order is kept.
 */
export async function settled(clients, client = clients[0]) {
  const word = `word ${Math.random()}`;
  const heard = hearing(clients, word);
  await run(client, 'nsp.emit(args)', word);
  await until('all to hear it', () => heard.every((words) => words.length > 0));
}

/** How many workers share rooms. */
export function members(haft, count) {
  return until(`${count} workers that share rooms`, async () => (await haft.total('haft_rooms_members')) === count);
}

// What the clients do: each opens one TCP connection, from an address and port that no other client uses, and reports
// what became of it.

import http from 'node:http';
import { createRequire } from 'node:module';

import { homes } from '../e2e/lib/home.mjs';

/** socket.io-client's own WebSocket, from the packages of the end-to-end tests. */
const WebSocket = createRequire(new URL('../e2e/package.json', import.meta.url))('ws');

/** How long a client waits for a sign of life, in ms. Longer than anything the schedule does to haft. */
const PATIENCE = 40_000;
/** Client ports, below those that the kernel gives out by itself (ip_local_port_range), and never used twice. */
const PORTS = { first: 5_000, last: 32_000 };
/** How long a WebSocket stays, in ms: from, and how much more at most. */
const STAY = [300, 3_500];
/** Rooms that those of WebSockets join. */
const ROOMS = 30;

/**
 * The addresses and ports that clients come from, each pair once: so a line of haft's log says which client it means,
 * whatever became of others.
 */
export class Places {
  #addresses = homes(200).map(({ address }) => address);
  #used = new Map();

  take(chance) {
    const address = this.#addresses[Math.floor(chance * this.#addresses.length)];
    const port = this.#used.get(address) ?? PORTS.first;
    if (port > PORTS.last) throw new Error(`all ports of ${address} were used: run for a shorter time`);
    this.#used.set(address, port + 1);
    return { localAddress: address, localPort: port };
  }
}

/**
 * What became of a client: `{ from, kind, begun, connected, at, pid }` and, unless it was served, `failure` in words with either
 * `cut`: the connection was cut, by a reset or an early end; or `sentAway`: the server said properly that it is ending
 * and begins no session (503 with Retry-After, a close frame), so that a client comes again. `from` is its address and
 * port, `begun` and `at` are the times of day of its beginning and its end, `pid` is the process that served it, if that
 * said so. A WebSocket joins a room and says something there once: `heard` counts what it heard of others, `fromOthers`
 * what came from those at other workers. `undefined` if the place was taken and nothing was opened.
 */
export async function client(kind, to, place, chance) {
  const from = `${place.localAddress}:${place.localPort}`;
  const outcome = { from, kind, begun: Date.now(), connected: false };
  try {
    const options = { ...to, ...place };
    await (kind === 'websocket' ? websocket(options, outcome, chance) : request(kind, options, outcome));
  } catch (error) {
    if (!outcome.connected && ['EADDRINUSE', 'EADDRNOTAVAIL'].includes(error.code)) return undefined;
    outcome.failure = error.message;
    // Reset before this process had a look: a connection that was never established is refused (ECONNREFUSED).
    outcome.connected ||= error.code === 'ECONNRESET';
    outcome.cut = ['ECONNRESET', 'EPIPE', 'CUT'].includes(error.code);
    outcome.sentAway = error.code === 'SENT_AWAY';
  }
  outcome.at = Date.now();
  return outcome;
}

const PATHS = { page: '/haft/page.json', handshake: '/socket.io/?EIO=4&transport=polling' };

/** One HTTP request: the page that names the worker, or the first request of a Socket.IO client. */
async function request(kind, options, outcome) {
  const { status, headers, body } = await new Promise((resolve, reject) => {
    const asked = http.get({ ...options, path: PATHS[kind], agent: false, timeout: PATIENCE }, (response) => {
      const parts = response.setEncoding('utf8').toArray();
      const { statusCode: status, headers } = response;
      parts.then((parts) => resolve({ status, headers, body: parts.join('') }), reject);
    });
    asked.on('error', reject);
    asked.on('timeout', () => asked.destroy(new Error('no answer')));
    watch(asked, outcome);
  });
  if (status !== 200) throw refusal(status, headers, body);
  if (kind === 'page') outcome.pid = JSON.parse(body).worker.pid;
  else if (!body.startsWith('0{"sid":')) throw new Error(`no handshake: ${body}`);
}

function refusal(status, headers, body) {
  const sentAway = status === 503 && headers['retry-after'];
  return Object.assign(new Error(`answered with ${status} ${body}`), sentAway && { code: 'SENT_AWAY' });
}

/** A Socket.IO session over a WebSocket, which stays for a while and says goodbye; a server may say it first. */
function websocket({ host, port, ...place }, outcome, chance) {
  const socket = new WebSocket(`ws://${host}:${port}/socket.io/?EIO=4&transport=websocket`, {
    ...place,
    perMessageDeflate: false,
    handshakeTimeout: PATIENCE,
    finishRequest: (request) => watch(request, outcome).end(),
  });
  const room = `room ${Math.floor(chance * ROOMS * 1_000) % ROOMS}`;
  Object.assign(outcome, { heard: 0, fromOthers: 0 });
  return new Promise((resolve, reject) => {
    let leaving = false;
    const leave = () => {
      leaving = true;
      socket.close();
    };
    const late = setTimeout(() => socket.terminate() ?? reject(new Error('no greeting')), PATIENCE);
    let stay;
    socket.on('error', reject);
    socket.on('unexpected-response', (request, { statusCode, headers }) => {
      reject(refusal(statusCode, headers, ''));
      request.destroy();
    });
    socket.on('message', (data) => {
      const packet = data.toString();
      if (packet.startsWith('0')) socket.send('40');
      if (packet === '2') socket.send('3');
      if (packet.startsWith('42["hello",')) {
        outcome.pid = JSON.parse(packet.slice(2))[1].pid;
        clearTimeout(late);
        socket.send(`420${JSON.stringify(['join', { room }])}`);
        stay = setTimeout(leave, STAY[0] + chance * STAY[1]);
      }
      if (packet.startsWith('430')) socket.send(`421${JSON.stringify(['message', { room, text: `${outcome.pid}` }])}`);
      if (packet.startsWith('42["message",')) {
        outcome.heard++;
        outcome.fromOthers += Number(JSON.parse(packet.slice(2))[1].text !== `${outcome.pid}`);
      }
    });
    socket.on('close', (code) => {
      clearTimeout(late);
      clearTimeout(stay);
      // 1006: without a close frame (RFC 6455, section 7.1.5).
      if (leaving || (outcome.pid && code !== 1006)) resolve();
      else reject(Object.assign(new Error(`closed with ${code}`), { code: code === 1006 ? 'CUT' : 'SENT_AWAY' }));
    });
  });
}

/** Notes when the request's connection is established: only then can a process have accepted it. */
function watch(request, outcome) {
  return request.once('socket', (socket) => socket.once('connect', () => (outcome.connected = true)));
}

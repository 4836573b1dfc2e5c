// --- Goodbyes -------------------------------------------------------------------------------------------------------
//
// A worker that goes ends its Engine.IO sessions and its other WebSockets one by one, as haft's built-in worker does:
// if they all fell at the end, their clients would all come back in one second. A session that polls gets a close
// packet, a WebSocket by a close frame. Socket.IO's client takes both for a lost transport, and comes anew by itself.

/** Milliseconds that a peer may take to close its end after the goodbye. */
const GRACE = 5000;
/** The part of the remaining time in which goodbyes are sent: the last clients need time to close. */
const TELLING = 4 / 5;
/** What of its time a worker leaves its sessions alone, where they are found as long as it is there. */
const ALONE = 1 / 2;
/** Milliseconds between two looks for what has begun meanwhile. */
const LOOK_EVERY = 1000;
/** Milliseconds within which the first request of a connection is read that came just before: Node 26 takes it for idle. */
const FRESH = 250;
/** The least milliseconds between two rounds of goodbyes: those that are due together are sent together. */
const STEP = 10;
/** `Service Restart`, of IANA's registry of close codes for WebSockets (RFC 6455, 7.4). */
const SERVICE_RESTART = 1012;

const { hrtime } = process;

/** Sockets whose connection was upgraded from HTTP. */
const upgraded = new Set();
/** Those of them that an Engine.IO has taken. */
const ofEngine = new WeakSet();
/** Sessions and sockets that have received their goodbye. */
const parting = new WeakSet();
/** Classes of servers whose upgrades are seen. */
const seeing = new Set();

function now() {
  const [seconds, nanoseconds] = hrtime();
  return seconds * 1e3 + nanoseconds / 1e6;
}

/** To be called when a server may have come into being. A module that the program has not loaded stays unloaded. */
function watchUpgrades() {
  const { moduleLoadList } = process;
  for (const name of ['http', 'https']) {
    if (seeing.has(name) || (moduleLoadList && !moduleLoadList.includes(`NativeModule ${name}`))) continue;
    seeing.add(name);
    const { prototype } = require(name).Server;
    const inherited = Object.getPrototypeOf(prototype);
    const { emit } = Object.getOwnPropertyDescriptor(prototype, 'emit') ? prototype : {};
    const emitting = function (event, request, socket) {
      if (event === 'upgrade') attempt(() => seeUpgrade(socket));
      if (event === 'request' || event === 'upgrade') attempt(() => seeRequest(request));
      return (emit || inherited.emit).apply(this, arguments);
    };
    Object.defineProperty(prototype, 'emit', { value: emitting, writable: true, configurable: true });
  }
}

function seeUpgrade(socket) {
  upgraded.add(socket);
  socket.once('close', () => upgraded.delete(socket));
}

/** All that can be ended, in any order: sessions, and upgraded sockets that are of no session. */
function openEnds() {
  const ends = [];
  for (const engine of busy) {
    for (const session of Object.values(engine.clients || {})) ends.push(session);
  }
  for (const socket of upgraded) {
    if (!ofEngine.has(socket) && !socket.destroyed) ends.push(socket);
  }
  return shuffled(ends.filter((end) => !parting.has(end)));
}

function shuffled(list) {
  for (let at = list.length - 1; at > 0; at--) {
    const other = Math.floor(Math.random() * (at + 1));
    [list[at], list[other]] = [list[other], list[at]];
  }
  return list;
}

let goodbyes;

/**
 * How many of `count` are to have received their goodbye at `time`, if goodbyes are spread evenly from `began` until
 * `until`. It follows from the clock alone: a late step makes no later one late, and nothing is lost by rounding.
 */
function due(time, began, until, count) {
  const over = until - began;
  if (over <= 0 || time >= until) return count;
  return Math.min(count, Math.floor(((time - began) / over) * count) + 1);
}

/** Ends all one by one, evenly over `over` milliseconds, `after` milliseconds from now on. */
function sayGoodbyes(after, over) {
  const from = now() + after;
  const until = from + over;
  let [ends, next, began] = [[], 0, from];
  const wait = (milliseconds) => {
    clearTimeout(goodbyes);
    goodbyes = later(() => attempt(step), milliseconds);
  };
  const step = () => {
    const time = now();
    if (time < from) return wait(from - time);
    if (next === ends.length) [ends, next, began] = [openEnds(), 0, time];
    if (ends.length === 0) return wait(LOOK_EVERY);
// Those that end by themselves meanwhile leave their moments unused: the others are closed no later.
    for (const count = due(time, began, until, ends.length); next < count; next++) sayGoodbye(ends[next]);
    // What begins meanwhile comes last.
    const each = Math.max(until - began, 0) / ends.length;
    return wait(Math.max(began + each * next - time, STEP));
  };
  wait(after);
}

function sayGoodbye(end) {
  if (parting.has(end)) return;
  parting.add(end);
  attempt(() => (upgraded.has(end) ? endSocket(end) : endSession(end)));
}

function endSession(session) {
  if (session.readyState !== 'open') return;
  session.close();
  later(() => attempt(() => cutOff(session)), GRACE);
}

/** Ends a session at once, whatever it waits for. */
function cutOff(session) {
  if (session.readyState !== 'closed' && session.closeTransport) session.closeTransport(true);
  terminate(session.transport && session.transport.socket);
}

/** A WebSocket of the package `ws`, if it is one: engines give it other names, and others' sockets may be given. */
function terminate(webSocket) {
  if (webSocket && typeof webSocket.terminate === 'function') webSocket.terminate();
}

function endSocket(socket) {
  const webSocket = webSocketOf(socket);
  if (webSocket) webSocket.close(SERVICE_RESTART);
// Its kind is unknown: it gets the end that it would get later.
  else socket.end();
  later(() => attempt(() => socket.destroy()), GRACE);
}

/** The WebSocket of the package `ws` on a socket, also where that was bundled into the program. */
function webSocketOf(socket) {
  const key = Object.getOwnPropertySymbols(socket).find(({ description }) => description === 'websocket');
  const webSocket = key && socket[key];
  return webSocket && typeof webSocket.close === 'function' ? webSocket : undefined;
}

// --- Draining -------------------------------------------------------------------------------------------------------

/** haft asks the worker to finish within so many milliseconds, and may send a signal later. Node closes its servers next. */
function drain({ within, signal }) {
  if (!(within > 0)) return;
  closeServersGently();
  sayGoodbyes(0, within * TELLING);
  endWithin(within);
  if (typeof signal === 'string') waitForSignal(signal, within);
}

/**
 * No connection comes any more. Those that there are carry the polls of sessions until these have ended: Node would
 * close what is idle between two polls, together with the servers. A session whose next poll needs a new connection
 * receives its goodbye with the answer to this one.
 */
function closeServersGently() {
  const servers = new Set();
  if (seeing.has('http')) keepIdle(require('http').Server.prototype, servers);
  if (seeing.has('https')) keepIdle(require('https').Server.prototype, servers);
  busy.forEach((engine) => {
    engine.on('flush', (session, packets) => attempt(() => endWithAnswer(session, packets)));
  });
}

/** Until the next turn, servers that are closed leave idle connections alone: for a moment, or as long as sessions poll. */
function keepIdle(prototype, servers) {
  const before = Object.getOwnPropertyDescriptor(prototype, 'closeIdleConnections');
  if (!before || !before.configurable) return;
  const keeping = function () {
    servers.add(this);
  };
  Object.defineProperty(prototype, 'closeIdleConnections', { ...before, value: keeping });
  setImmediate(() => attempt(() => {
    const now = Object.getOwnPropertyDescriptor(prototype, 'closeIdleConnections');
    if (now && now.value === keeping) Object.defineProperty(prototype, 'closeIdleConnections', before);
  }));
  const close = () => {
    if (polls()) later(() => attempt(close), LOOK_EVERY);
    else servers.forEach((server) => server.closeIdleConnections());
  };
  later(() => attempt(close), polls() ? LOOK_EVERY : FRESH);
}

/** Whether a session polls. */
function polls() {
  const isPolling = ({ transport }) => transport && transport.name === 'polling';
  return [...busy].some((engine) => Object.values(engine.clients || {}).some(isPolling));
}

function endWithAnswer(session, packets) {
  const { transport } = session;
  if (!transport || transport.name !== 'polling' || parting.has(session)) return;
  const { res } = transport;
  if (!res || res.shouldKeepAlive !== false) return;
  parting.add(session);
  packets.push({ type: 'close' });
  setImmediate(() => attempt(() => cutOff(session)));
}

// --- Connection state recovery ---------------------------------------------------------------------------------------
//
// Socket.IO's `connectionStateRecovery` keeps what a client that lost its connection has missed in the memory of its
// worker. That client comes back with a new session, which may be anywhere; only Socket.IO's own CONNECT packet names
// the one before, by a `pid`. So a pid gets this worker's tag, too: the worker to which a client comes back asks the
// worker that the tag names, through haft, and goes on with the client's rooms, data and packets. A recovered client
// keeps its pid: the worker that the tag names remembers where it went, and is notified when it is lost there.

/** Milliseconds that an answer is waited for: the client waits meanwhile. */
const ANSWER_WITHIN = 1000;
/** Milliseconds that a worker waits for the end of a connection whose client has come back before it. */
const END_WITHIN = 500;
/** The most questions that wait for an answer; what comes beyond is not recovered. */
const MAX_QUESTIONS = 10000;
/** The most clients that are known to be kept by another worker. The oldest are forgotten. */
const MAX_KEPT_ELSEWHERE = 10000;
/** The most bytes of one client's state. A longer one is not recovered elsewhere. */
const MAX_STATE = 1 << 20;
/** How often a question is passed on. */
const MAX_HOPS = 2;

/** Adapters with sessions that can be recovered, each with its own `restoreSession`. */
const adapters = new Map();
/** By pid: sockets that are connected here, and what waits for their ends. */
const online = new Map();
/** By pid: the worker that has it or keeps it, and until when. */
const keptElsewhere = new Map();
/** By number: what takes the answer. */
const questions = new Map();
let asked = 0;

/** The adapter of Socket.IO 4.6 and later that keeps sessions in memory, if a module exports it. */
function recoveryOf(exported) {
  if (exported === null || typeof exported !== 'object') return undefined;
  const { value } = attempt(() => Object.getOwnPropertyDescriptor(exported, 'SessionAwareAdapter'), () => {}) || {};
  const methods = ['restoreSession', 'persistSession', 'addAll', 'delAll', 'close'];
  return typeof value === 'function' && methods.every((name) => methodOf(value.prototype, name)) ? value : undefined;
}

function hookRecovery({ prototype }, tags) {
  const restore = methodOf(prototype, 'restoreSession');
  if (wrappers.has(restore)) return;
  const met = new WeakSet();
  // A socket's first room is its own, and it joins it before the client gets its pid.
  override(prototype, 'addAll', (adapter, [id]) => {
    adapters.set(adapter, restore);
    const socket = adapter.nsp.sockets.get(id);
    if (!socket || met.has(socket) || typeof socket.pid !== 'string') return;
    met.add(socket);
    if (!tags.find(socket.pid)) socket.pid = tags.append(socket.pid);
    online.set(socket.pid, { socket, waiting: [] });
  });
  // The last that a socket does, after its session was kept.
  override(prototype, 'delAll', (adapter, [id]) => {
    const socket = adapter.nsp.sockets.get(id);
    const entry = socket && online.get(socket.pid);
    if (!entry || entry.socket !== socket) return;
    online.delete(socket.pid);
    entry.waiting.forEach((goOn) => goOn());
  });
  override(prototype, 'persistSession', (adapter, [session]) => {
    adapters.set(adapter, restore);
    const home = tags.find(session.pid);
    keptElsewhere.delete(session.pid);
    if (!home || home.isOwn) return;
    pass(home, { what: 'kept', from: tags.own, pid: session.pid, within: adapter.maxDisconnectionDuration });
  });
  override(prototype, 'close', (adapter) => void adapters.delete(adapter));
  const restoring = function (pid, offset) {
    const here = restore.call(this, pid, offset);
    if (here) return countRecovered(here);
    const elsewhere = attempt(() => ask(tags, { nsp: this.nsp.name, pid, offset, hops: 0 }));
    if (!elsewhere) return here;
    const goOn = attempt(() => followPackets(this, offset));
    return elsewhere.then((session) => countRecovered(attempt(() => goOn && goOn(session)) || session));
  };
  wrappers.add(restoring);
  Object.defineProperty(prototype, 'restoreSession', { value: restoring, writable: true, configurable: true });
  answerWith = (message) => answer(tags, message);
}

/** Counts the clients that are recovered, where sessions need no tags. */
function watchRecovery({ prototype }) {
  const restore = methodOf(prototype, 'restoreSession');
  if (wrappers.has(restore)) return;
  const watching = function (...args) {
    return countRecovered(restore.apply(this, args));
  };
  wrappers.add(watching);
  Object.defineProperty(prototype, 'restoreSession', { value: watching, writable: true, configurable: true });
}

/** As `wrap`, for this class alone where the method is inherited. */
function override(prototype, name, before) {
  const method = methodOf(prototype, name);
  if (ownerOf(prototype, name) !== prototype) {
    Object.defineProperty(prototype, name, {
      value(...args) {
        return method.apply(this, args);
      },
      writable: true,
      configurable: true,
    });
  }
  wrap(prototype, name, before);
}

/** What takes the messages of other workers, once there can be any. */
let answerWith;

/**
 * Sends a message to the worker of a tag, or to the one that has its place now. Where workers share rooms it goes by their
 * link: behind the packets that were sent before it.
 */
function pass({ slot, generation }, message) {
  const isIt = ([member, peer]) => peer.slot === slot && peer.generation === generation && member.startsWith(ownHost);
  const [member] = [...peers].find(isIt) || [];
  if (member) sendBody(member, packBody({ type: PASS, message }));
  else say({ act: 'pass', slot, generation, ...message });
}

/** The worker that may keep a client; nothing if none but this can. */
function keeperOf(tags, pid) {
  const kept = keptElsewhere.get(pid);
  if (kept && now() < kept.until) return kept;
  const home = tags.find(pid);
  return home && !home.isOwn ? home : undefined;
}

/** The state of a client that another worker keeps; null if it has none. */
function ask(tags, question) {
  const keeper = keeperOf(tags, question.pid);
  if (!keeper || questions.size >= MAX_QUESTIONS || !process.connected) return undefined;
  return new Promise((resolve) => {
    const number = ++asked;
    const settle = (state) => {
      clearTimeout(timer);
      questions.delete(number);
      resolve(state);
    };
    const timer = setTimeout(settle, ANSWER_WITHIN, null);
    questions.set(number, settle);
    pass(keeper, { what: 'restore', from: tags.own, number, ...question });
  });
}

/** A message of another worker's. */
async function answer(tags, message) {
  const { what, from, number, pid } = message;
  if (what === 'restored') {
    const settle = questions.get(number);
    if (settle) settle(attempt(() => unpack(message.state)) || null);
  } else if (what === 'kept') {
    remember(pid, from, now() + message.within);
  } else if (what === 'restore') {
    const state = await take(message);
    const keeper = state ? undefined : keptElsewhere.get(pid);
    if (state) remember(pid, from, Infinity);
    const isAsker = keeper && keeper.slot === from.slot && keeper.generation === from.generation;
    if (!keeper || isAsker || message.hops >= MAX_HOPS) return pass(from, { what: 'restored', number, state });
    const { nsp, offset, hops } = message;
    pass(keeper, { what, from, number, nsp, pid, offset, hops: hops + 1 });
  }
  return undefined;
}

function remember(pid, { slot, generation }, until) {
  keptElsewhere.delete(pid);
  keptElsewhere.set(pid, { slot, generation, until });
  if (keptElsewhere.size > MAX_KEPT_ELSEWHERE) keptElsewhere.delete(keptElsewhere.keys().next().value);
}

/** What this worker keeps of a client, as text; it is the other worker's from then on. Null if there is nothing. */
async function take({ nsp, pid, offset }) {
  const { waiting } = online.get(pid) || {};
  if (waiting) {
    await new Promise((goOn) => {
      waiting.push(goOn);
      later(goOn, END_WITHIN);
    });
  }
  for (const [adapter, restore] of adapters) {
    const session = adapter.nsp.name === nsp ? await restore.call(adapter, pid, offset) : undefined;
    if (!session) continue;
    const state = pack(session);
    if (state) adapter.sessions.delete(pid);
    return state;
  }
  return null;
}

/** JSON, in which messages may be written, has no buffers, dates, maps. Data that cannot be copied stays where it is. */
function pack(session) {
  try {
    const bytes = require('v8').serialize(session);
    return bytes.length <= MAX_STATE ? bytes.toString('base64') : null;
  } catch {
    return null;
  }
}

function unpack(state) {
  return state && require('v8').deserialize(Buffer.from(state, 'base64'));
}

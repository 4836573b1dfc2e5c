// haft's part inside a worker that runs an unmodified Node program: NODE_OPTIONS="--require THIS FILE". It does three
// things, and leaves the program as it is otherwise:
//
// 1. Addresses. Where haft learnt a client's address from a proxy, the socket tells that address: socket.remoteAddress,
//    and so req.ip of Express and handshake.address of Socket.IO.
// 2. Tags. An Engine.IO session id gets haft's tag, so that haft finds the session's worker again without remembering
//    anything: BASE.TAG, TAG = base64url(slot: 2 bytes, generation: 4 bytes, first 6 bytes of HMAC-SHA256(key, BASE and
//    the 6 bytes before)), numbers big-endian. BASE is the program's own id, whatever makes it.
// 3. News. haft is told how many Engine.IO sessions the process has, and when a worker that was replaced has none left.
//
// Node 14 and later; nothing but Node. An error in here costs what this does, never the program.

'use strict';

/** Messages of haft's, to us and from us. Node takes them for its own, so that no program sees them. */
const CMD = 'NODE_HAFT';
/** Most often that the number of sessions is told, in milliseconds. */
const PAUSE = 100;
/** Length of a tag. */
const TAG = 16;

// The program may put a function of its own in its place.
const { send } = process;
const { env } = process;

takeOutOfOptions();
if (env.HAFT_SLOT !== undefined && typeof send === 'function') {
  const key = env.HAFT_TAG_KEY;
  delete env.HAFT_TAG_KEY; // not for the program, nor for what it starts
  attempt(() => listenToHaft());
  if (/^[0-9a-f]{64}$/i.test(key)) attempt(() => watchModules(tagger(Buffer.from(key, 'hex'))));
}

/** Runs what must never break the program. The first error is told, in one line. */
function attempt(work) {
  try {
    return work();
  } catch (error) {
    complain(error);
  }
}

let complained = false;

function complain(error) {
  if (complained) return;
  complained = true;
  try {
    process.stderr.write(`haft: ${String((error && error.stack) || error).replace(/\s*\n\s*/g, ' ')}\n`);
  } catch {
    // There is nobody to tell.
  }
}

// --- Where this runs ------------------------------------------------------------------------------------------------

/** What the program starts is no worker of haft's, and this file may be gone by then. */
function takeOutOfOptions() {
  attempt(() => {
    // Node's rule: blanks part the words, but for those within quotation marks, in which a backslash escapes.
    const words = (env.NODE_OPTIONS || '').match(/(?:"(?:\\.|[^"\\])*"|[^ "])+/g) || [];
    const plain = (word) => (word || '').replace(/"((?:\\.|[^"\\])*)"/g, (_, inside) => inside.replace(/\\(.)/g, '$1'));
    const at = words.findIndex((word, i) => /^(-r|--require)$/.test(plain(word)) && plain(words[i + 1]) === __filename);
    if (at < 0) return;
    words.splice(at, 2);
    if (words.length > 0) env.NODE_OPTIONS = words.join(' ');
    else delete env.NODE_OPTIONS;
  });
}

// --- What haft says -------------------------------------------------------------------------------------------------

function listenToHaft() {
  // Before Node's own listener, which makes the socket of the handle.
  process.prependListener('internalMessage', (message, handle) => {
    attempt(() => {
      if (!message) return;
      if (message.cmd === 'NODE_HANDLE' && message.haft && handle) tellAddress(handle, message.haft);
      else if (message.cmd === CMD && message.act === 'linger') linger();
    });
  });
}

/** net.Socket asks its handle for the peer, once, in every version of Node. A port that nobody knows is 0. */
function tellAddress(handle, { address, family, port }) {
  handle.getpeername = (out) => {
    Object.assign(out, { address, family, port });
    return 0;
  };
}

// --- What haft is told ----------------------------------------------------------------------------------------------

/** Engines that have had sessions since the last count found them without. */
const busy = new Set();
/** Engines that are known. */
const known = new WeakSet();
let saidTags = false;
/** The number of sessions that haft knows. */
let told = 0;
/** Running while the number must not be told again. */
let timer;
let lingering = false;
let saidIdle = false;

function say(message) {
  // With a function to call, Node gives an error to that instead of throwing it.
  if (process.connected) send.call(process, { cmd: CMD, ...message }, undefined, undefined, () => {});
}

function count() {
  let sessions = 0;
  for (const engine of busy) {
    if (engine.clientsCount > 0) sessions += engine.clientsCount;
    else busy.delete(engine);
  }
  return sessions;
}

/** The number of sessions may have changed. */
function changed() {
  attempt(() => {
    const sessions = count();
    const idle = lingering && !saidIdle && sessions === 0;
    if (sessions !== told && (idle || timer === undefined)) {
      told = sessions;
      say({ act: 'sessions', count: sessions });
      clearTimeout(timer);
      timer = setTimeout(() => {
        timer = undefined;
        changed();
      }, PAUSE);
      timer.unref();
    }
    if (idle) {
      saidIdle = true;
      say({ act: 'idle' });
    }
  });
}

function linger() {
  lingering = true;
  changed();
}

/** An engine has come into being. */
function meet(engine) {
  if (known.has(engine)) return;
  known.add(engine);
  if (!saidTags) {
    saidTags = true;
    say({ act: 'tags' });
  }
  engine.on('connection', (session) => {
    attempt(() => {
      busy.add(engine);
      // The engine itself was first to wait for this: it has counted by then.
      session.once('close', changed);
      changed();
    });
  });
}

// --- Tags -----------------------------------------------------------------------------------------------------------

/** Writes and reads this worker's tags. */
function tagger(key) {
  const { createHmac } = require('crypto');
  const own = Buffer.alloc(6);
  own.writeUInt16BE(Number(env.HAFT_SLOT), 0);
  own.writeUInt32BE(Number(env.HAFT_GENERATION), 2);

  function tag(base, numbers) {
    const checksum = createHmac('sha256', key).update(base).update(numbers).digest().slice(0, 6);
    return Buffer.concat([numbers, checksum]).toString('base64').replace(/\+/g, '-').replace(/\//g, '_');
  }

  /** The id without its tag, and whether the tag is this worker's; nothing if there is no valid tag. */
  function read(sid) {
    const end = sid.length - TAG - 1;
    if (end < 0 || sid[end] !== '.') return undefined;
    const base = sid.slice(0, end);
    const numbers = Buffer.from(sid.slice(end + 1), 'base64').slice(0, 6);
    if (tag(base, numbers) !== sid.slice(end + 1)) return undefined;
    return { base, isOwn: numbers.equals(own) };
  }

  return {
    /** An id with this worker's tag, and no other. What is no id is left alone. */
    append(id) {
      if (typeof id !== 'string' && typeof id !== 'number') return id;
      const tagged = read(String(id));
      const base = tagged ? tagged.base : String(id);
      return `${base}.${tag(base, own)}`;
    },
    /** Whether the id is of a session of another worker's. */
    isForeign(sid) {
      const tagged = read(sid);
      return tagged !== undefined && !tagged.isOwn;
    },
  };
}

/** Looks at each CommonJS module once it is loaded, also where an ECMAScript module imports it. */
function watchModules(tags) {
  const { prototype } = require('module');
  const { load } = prototype;
  prototype.load = function (...args) {
    const result = load.apply(this, args);
    attempt(() => enginesOf(this.exports).forEach((engine) => hook(engine, tags)));
    return result;
  };
}

/** The Engine.IO servers, of any version, that a module exports. Getters are left alone: what they give is from another. */
function enginesOf(exported) {
  if (exported === null || (typeof exported !== 'object' && typeof exported !== 'function')) return [];
  try {
    const values = ['Server', 'default'].map((name) => (Object.getOwnPropertyDescriptor(exported, name) || {}).value);
    return [exported, ...values].filter(isEngine);
  } catch {
    return []; // a Proxy that does not like to be looked at
  }
}

function isEngine(value) {
  if (typeof value !== 'function') return false;
  const prototype = (Object.getOwnPropertyDescriptor(value, 'prototype') || {}).value;
  return Boolean(prototype) && ['generateId', 'handshake'].every((name) => typeof methodOf(prototype, name) === 'function');
}

function ownerOf(prototype, name) {
  let owner = prototype;
  while (owner && !Object.prototype.hasOwnProperty.call(owner, name)) owner = Object.getPrototypeOf(owner);
  return owner;
}

function methodOf(prototype, name) {
  const owner = ownerOf(prototype, name);
  return owner ? Object.getOwnPropertyDescriptor(owner, name).value : undefined;
}

/** Functions of ours: nothing is wrapped twice. */
const wrappers = new WeakSet();

/** Puts `before` in front of a method, with the same `this` and arguments; what it gives back is called afterwards. */
function wrap(prototype, name, before) {
  const owner = ownerOf(prototype, name);
  const method = methodOf(prototype, name);
  if (typeof method !== 'function' || wrappers.has(method)) return;
  const wrapper = function (...args) {
    const after = attempt(() => before(this, args));
    try {
      return method.apply(this, args);
    } finally {
      if (after) attempt(after);
    }
  };
  wrappers.add(wrapper);
  // Fails on a frozen prototype, which stays without tags.
  Object.defineProperty(owner, name, { ...Object.getOwnPropertyDescriptor(owner, name), value: wrapper });
}

function hook({ prototype }, tags) {
  wrap(prototype, 'handshake', (engine) => {
    meet(engine);
    return tagNext(engine, tags);
  });
  // Every constructor calls it.
  wrap(prototype, 'init', meet);
  // A proxy reuses a connection for several clients, and this one's session is with another worker. The engine says 400,
  // and the connection ends with it: haft looks at the first request of the next.
  wrap(prototype, 'handleRequest', (engine, [req, res]) => {
    const [, escaped] = /[?&]sid=([^&#]*)/.exec(req.url) || [];
    if (!escaped || req.httpVersionMajor !== 1 || res.headersSent) return;
    const sid = decode(escaped);
    if (engine.clients && !(sid in engine.clients) && tags.isForeign(sid)) res.setHeader('Connection', 'close');
  });
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Tags the id that the handshake which is about to begin asks for, as its first step in every version. The function that
 * makes it is looked up only now, and put back at once: it may be the engine's own, of a subclass, or assigned at any
 * time to a prototype or to the engine itself, and the program finds there what it has put there.
 */
function tagNext(engine, tags) {
  const { generateId } = engine;
  if (typeof generateId !== 'function') return undefined;
  const before = Object.getOwnPropertyDescriptor(engine, 'generateId');
  const putBack = () => {
    const now = Object.getOwnPropertyDescriptor(engine, 'generateId');
    if (!now || now.value !== tagging) return;
    if (before) Object.defineProperty(engine, 'generateId', before);
    else delete engine.generateId;
  };
  const tagging = function (...args) {
    attempt(putBack);
    const id = generateId.apply(this, args);
    const append = (base) => {
      const tagged = attempt(() => tags.append(base));
      return tagged === undefined ? base : tagged;
    };
    // Engine.IO 3 knows no promises: what is not one stays none.
    return id && typeof id.then === 'function' ? id.then(append) : append(id);
  };
  Object.defineProperty(engine, 'generateId', { value: tagging, writable: true, configurable: true, enumerable: false });
  return putBack;
}

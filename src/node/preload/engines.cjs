// --- Engine.IO ------------------------------------------------------------------------------------------------------

/**
 * Looks for Engine.IO. `tags`: what tags its ids, if they are to be tagged.
 *
 * Looks at each CommonJS module once it is loaded, also where an ECMAScript module imports it. Yields what finds those
 * that came another way: Node does not load them so where a customization hook (`module.register`) brings their source.
 */
function watchModules(tags) {
  const { prototype } = require('module');
  const { load } = prototype;
  const look = ({ exports: exported }) => attempt(() => {
    enginesOf(exported).forEach((engine) => hook(engine, tags));
    const recovery = recoveryOf(exported);
    if (recovery) {
      if (figures.recovered === undefined) figures.recovered = 0;
      if (tags) hookRecovery(recovery, tags);
      else watchRecovery(recovery);
    }
    if (sharesRooms) lookForRooms(exported);
  });
  prototype.load = function (...args) {
    const result = load.apply(this, args);
    look(this);
    return result;
  };
  return () => Object.values(require.cache).forEach(look);
}

/** The Engine.IO servers, of any version, that a module exports. What a getter gives is from another module. */
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
  return ['generateId', 'handshake'].every((name) => typeof methodOf(prototype, name) === 'function');
}

/** Where in a chain of prototypes a property is, if anywhere. */
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
  sawEngine = true;
  wrap(prototype, 'handshake', (engine) => {
    meet(engine);
    return tagging && tagNext(engine, tags);
  });
  // Every constructor calls it.
  wrap(prototype, 'init', meet);
  wrap(prototype, 'handleUpgrade', (engine, [, socket]) => void ofEngine.add(socket));
  if (!tags) return;
  watchPaths(prototype);
  // A proxy uses a connection for several clients, and this one's session is with another worker. The engine answers
  // 400, which ends the connection: haft reads the first request of the next one.
  wrap(prototype, 'handleRequest', (engine, [req, res]) => {
    seePath(engine, req);
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
 * Tags the id that the handshake which is about to begin asks for, as its first step in every version. The function
 * that makes it is looked up only now, and put back at once: it may be the engine's own, of a subclass, or assigned at
 * any time to a prototype or to the engine itself, and the program finds there what it has put there.
 */
function tagNext(engine, tags) {
  const { generateId } = engine;
  if (typeof generateId !== 'function') return undefined;
  const before = Object.getOwnPropertyDescriptor(engine, 'generateId');
  const putBack = () => {
    const now = Object.getOwnPropertyDescriptor(engine, 'generateId');
    if (!now || now.value !== asked) return;
    if (before) Object.defineProperty(engine, 'generateId', before);
    else delete engine.generateId;
  };
  const asked = function (...args) {
    attempt(putBack);
    const id = generateId.apply(this, args);
    const append = (base) => {
      const tagged = attempt(() => tags.append(base));
      return tagged === undefined ? base : tagged;
    };
    // Engine.IO 3 knows no promises: what is not one stays none.
    return id && typeof id.then === 'function' ? id.then(append) : append(id);
  };
  Object.defineProperty(engine, 'generateId', { value: asked, writable: true, configurable: true });
  return putBack;
}

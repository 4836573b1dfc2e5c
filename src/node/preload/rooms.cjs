// --- Rooms ----------------------------------------------------------------------------------------------------------
//
// Socket.IO's own adapter knows the clients of its own process only: below haft, `io.emit` would reach those of one
// worker. Where the program has no adapter of its own, it gets a class that goes further: what it does to the clients
// of this worker is done as before and at once, and the other workers are asked to do the same to theirs. Sockets of
// other workers are Socket.IO's `RemoteSocket`, as with every adapter for several servers.

/** Types of messages. */
const [EMIT, JOIN, LEAVE, DISCONNECT, FETCH, FETCHED, COUNTED, ACKED, SIDE, SIDE_ANSWER, PASS, EMITTED] = Array(12).keys();
/** Milliseconds to wait for an answer where the program sets no limit: as in Socket.IO's adapters. */
const PATIENT = 5000;

/** Whether workers share rooms, and whether there is but one: the program may change its environment. */
const sharesRooms = env.HAFT_ROOMS_LINK !== undefined;
const isOnlyWorker = env.HAFT_WORKERS === '1';
const ownNumber = Number(env.HAFT_WORKER).toString(36);

/** Socket.IO's own adapters, of any version. */
const ownAdapters = new WeakSet();
/** The one of them that a server takes, or would take. */
const ownAdapterOf = new WeakMap();
/** What `createAdapter` of @socket.io/cluster-adapter yields, as source text, and the adapter that its class is made of. */
const clusterAdapters = new Map();
/** Whether a server was to use @socket.io/cluster-adapter, and shares rooms instead. */
let replacedAdapter = false;
/** Classes that share rooms, by the class that they are made of. */
const sharing = new WeakMap();
/** Adapters that share rooms, by what other workers know them by. */
const enrolled = new Map();
/** What each of them is made of: Socket.IO's own methods, and those that keep no packets. */
const madeOf = new WeakMap();
/** What other workers know servers by. */
const serverNames = new WeakMap();
/** Classes of Socket.IO's sockets. */
const socketClasses = new Set();
/** What waits for answers, by its number. */
const asking = new Map();
let askingNext = 0;
/** The socket whose `emit` is under way. */
let emitting;
let offsets = 0;
/** Whether the program has loaded a Socket.IO that is known. */
let sawServer = false;

/** Looks at what a module exports. */
function lookForRooms(exported) {
  if (exported === null || (typeof exported !== 'object' && typeof exported !== 'function')) return;
  const own = (name) => (attempt(() => Object.getOwnPropertyDescriptor(exported, name), () => {}) || {}).value;
  const has = (value, ...names) => typeof value === 'function'
    && names.every((name) => typeof methodOf(value.prototype, name) === 'function');
  for (const value of [exported, own('Adapter'), own('SessionAwareAdapter')]) {
    if (has(value, 'addAll', 'del', 'delAll', 'broadcast') && /^(SessionAware)?Adapter$/.test(value.name)) {
      ownAdapters.add(value);
    }
  }
  for (const value of [exported, own('Server')]) {
    if (has(value, 'adapter', 'of', 'attach', 'path')) hookServer(value);
  }
  lookForClusterAdapter(own);
  const Socket = own('Socket');
  if (has(Socket, 'emit', 'join', 'leave', 'disconnect', '_onconnect')) socketClasses.add(Socket);
}

/** Its messages would go through haft's loop, and to the workers of this host alone. */
function lookForClusterAdapter(own) {
  const [createAdapter, made] = [own('createAdapter'), own('NodeClusterAdapter') || own('ClusterAdapter')];
  if (typeof createAdapter !== 'function' || typeof own('setupPrimary') !== 'function' || typeof made !== 'function') return;
  let base = made;
  while (base && !ownAdapters.has(base)) base = Object.getPrototypeOf(base);
  if (base) clusterAdapters.set(String(createAdapter()), base);
}

/** Socket.IO asks for its adapter in the constructor of the server, and whenever the program sets one. */
function hookServer({ prototype }) {
  sawServer = true;
  const owner = ownerOf(prototype, 'adapter');
  const { adapter } = owner;
  if (wrappers.has(adapter)) return;
  const choosing = function (given) {
    if (arguments.length === 0) return adapter.call(this);
    return adapter.call(this, attempt(() => choose(this, given)) || given);
  };
  wrappers.add(choosing);
  Object.defineProperty(owner, 'adapter', { ...Object.getOwnPropertyDescriptor(owner, 'adapter'), value: choosing });
}

function choose(server, given) {
  if (ownAdapters.has(given)) {
    ownAdapterOf.set(server, given);
    if (typeof methodOf(given.prototype, 'fetchSockets') === 'function') return sharedOver(given);
    if (!isOnlyWorker) tellTrouble('rooms_old');
  }
  const base = typeof given === 'function' && clusterAdapters.get(String(given));
  if (base) {
    replacedAdapter = true;
    return sharedOver(ownAdapterOf.get(server) || base);
  }
  for (const adapter of [...enrolled.values()]) if (adapter.nsp.server === server) dismiss(adapter);
  return given;
}

/** With recovery a socket's own packets go by the adapter, too. */
function watchEmit({ prototype }) {
  wrap(prototype, 'emit', (socket) => {
    const before = emitting;
    emitting = socket;
    return () => (emitting = before);
  });
}

// --- Identities -----------------------------------------------------------------------------------------------------

/** A server's name: its path, and which of those with that path it is. The same in all workers of one program. */
function nameOf(server) {
  const known = serverNames.get(server);
  if (known) return known;
  const used = new Set([...enrolled.values()].map(({ nsp }) => serverNames.get(nsp.server)));
  const path = attempt(() => server.path(), () => {}) || '';
  let number = 0;
  while (used.has(`${path}#${number}`)) number++;
  serverNames.set(server, `${path}#${number}`);
  return serverNames.get(server);
}

function keyOf({ nsp }) {
  return `${nameOf(nsp.server)} ${nsp.name}`;
}

function enrol(adapter, methods) {
  madeOf.set(adapter, methods);
  enrolled.set(keyOf(adapter), adapter);
  // A program may set an adapter of its own right after it has made the server: then there is nothing to link.
  setImmediate(() => attempt(() => enrolled.size > 0 && openLink()));
}

function dismiss(adapter) {
  const key = keyOf(adapter);
  if (enrolled.get(key) === adapter) enrolled.delete(key);
}

// --- The adapter ----------------------------------------------------------------------------------------------------

/** The class that shares rooms, made of one of Socket.IO's own. */
function sharedOver(Base) {
  const known = sharing.get(Base);
  if (known) return known;
  const keepsPackets = Base.name === 'SessionAwareAdapter';
  if (keepsPackets) socketClasses.forEach(watchEmit);
  // What keeps packets would keep them under names of its own.
  const plain = (keepsPackets ? Object.getPrototypeOf(Base) : Base).prototype;
  const Shared = class extends Base {
    constructor(...args) {
      super(...args);
      attempt(() => enrol(this, { base: Base.prototype, plain }));
    }

    close() {
      attempt(() => dismiss(this));
      return super.close();
    }

    serverCount() {
      return Promise.resolve(1 + peers.size);
    }

    broadcast(packet, options) {
      const offset = keepsPackets ? attempt(() => keep(this, packet, options)) : undefined;
      const { type, data } = packet;
      // Packed before the local emit, where the parser may change it, and sent after it: the local emit throws for what
      // cannot be encoded.
      const body = isForOne(this, options)
        ? undefined
        : attempt(() => prepared(this, options, { type: EMIT, packet: { type, data }, offset }), cannotSend);
      plain.broadcast.call(this, packet, options);
      if (body) sendBody(ALL_OTHERS, body);
    }

    broadcastWithAck(packet, options, counted, acknowledged) {
      const { timeout } = options.flags || {};
      const others = [...peers.keys()];
      const request = askMembers(others, timeout, {
        answered: (answer) => (answer.type === COUNTED ? counted(answer.count) : acknowledged(answer.value)),
        left: () => counted(0),
      });
      const { type, data } = packet;
      const message = { type: EMIT, packet: { type, data }, request, timeout };
      const body = attempt(() => prepared(this, options, message), cannotSend);
      super.broadcastWithAck(packet, options, counted, acknowledged);
      if (body) sendBody(ALL_OTHERS, body);
      // Socket.IO waits for `serverCount` answers, regardless of how many servers were asked.
      else others.forEach(() => counted(0));
    }

    addSockets(options, rooms) {
      super.addSockets(options, rooms);
      tellOthers(this, options, { type: JOIN, rooms });
    }

    delSockets(options, rooms) {
      super.delSockets(options, rooms);
      tellOthers(this, options, { type: LEAVE, rooms });
    }

    disconnectSockets(options, close) {
      super.disconnectSockets(options, close);
      tellOthers(this, options, { type: DISCONNECT, close });
    }

    async fetchSockets(options) {
      const here = await super.fetchSockets(options);
      if (isLocal(options) || peers.size === 0) return here;
      const { timeout = PATIENT } = options.flags || {};
      return new Promise((resolve, reject) => {
        const request = askMembers([...peers.keys()], timeout, {
          answered: ({ sockets }) => void here.push(...sockets),
          done: () => resolve(here),
          late: (missing) => reject(new Error(`timeout reached: missing ${missing} responses`)),
        });
        tellOthers(this, options, { type: FETCH, request });
      });
    }

    async sockets(rooms) {
      const sockets = await this.fetchSockets({ rooms, except: new Set(), flags: {} });
      return new Set(sockets.map(({ id }) => id));
    }

    serverSideEmit(packet) {
      const done = packet[packet.length - 1];
      if (typeof done !== 'function') return tellOthers(this, {}, { type: SIDE, values: packet });
      if (peers.size === 0) return done(null, []);
      const responses = [];
      const request = askMembers([...peers.keys()], PATIENT, {
        answered: (answer) => void ('value' in answer && responses.push(answer.value)),
        done: () => done(null, responses),
        late: (missing) => done(new Error(`timeout reached: missing ${missing} responses`), responses),
      });
      return tellOthers(this, {}, { type: SIDE, values: packet.slice(0, -1), request });
    }
  };
  // To the program it is the class that it would have without haft.
  Object.defineProperty(Shared, 'name', { value: Base.name });
  sharing.set(Base, Shared);
  sharing.set(Shared, Shared);
  ownAdapters.add(Shared);
  return Shared;
}

function isLocal({ flags }) {
  return Boolean(flags && flags.local);
}

/** Whether this is a socket's own `emit`. */
function isForOne(adapter, { rooms, except }) {
  const isAlone = emitting !== undefined && emitting.nsp === adapter.nsp && rooms.size === 1 && except.size === 0;
  return isAlone && rooms.has(emitting.id);
}

/**
 * Keeps a packet for clients that lose their connection, as SessionAwareAdapter does, and yields the name by which a
 * client asks for those after it. Unlike Socket.IO's own it is the same in all workers, and no two packets have the same.
 */
function keep(adapter, packet, options, given) {
  const { volatile } = options.flags || {};
  if (packet.type !== 2 || packet.id !== undefined || volatile !== undefined) return undefined;
  const emittedAt = Date.now();
  const id = given || `${emittedAt.toString(36)}-${ownNumber}-${(offsets++).toString(36)}`;
  if (!given) packet.data.push(id);
  adapter.packets.push({ id, opts: options, data: packet.data, emittedAt });
  return id;
}

// --- Asking others --------------------------------------------------------------------------------------------------

/** A message for the other workers, as bytes; none if there are no others. */
function prepared(adapter, options, message) {
  if (isLocal(options) || (peers.size === 0 && isOnlyWorker)) return undefined;
  const { rooms = [], except = [], flags } = options;
  const plain = { rooms: [...rooms], except: [...except], flags };
  return packBody({ ...message, key: keyOf(adapter), options: plain }, hasOwnParser(adapter));
}

function hasOwnParser({ nsp }) {
  return Boolean((nsp.server.opts || {}).parser);
}

function tellOthers(adapter, options, message) {
  attempt(() => {
    const body = prepared(adapter, options, message);
    if (body) sendBody(ALL_OTHERS, body);
  }, cannotSend);
}

let saidCannotSend = false;

/** What has no JSON (a circle, a BigInt) stays in this worker. */
function cannotSend({ message }) {
  countUnsent();
  if (saidCannotSend) return;
  saidCannotSend = true;
  attempt(() => process.stderr.write(
    `haft: what a program sends by Socket.IO must be JSON or bytes to reach other workers: ${message}\n`,
  ), () => {});
}

/**
 * Waits for answers of `members`, `timeout` milliseconds at most, and yields the number to ask under. `answered` is called
 * for each answer, `left` for each member that goes before it has given one, `done` when none is missing, and `late` with
 * the number of those that are when the time is over. Without `done` there may be several answers of each.
 */
function askMembers(members, timeout, { answered, left = () => {}, done, late = () => {} }) {
  const number = ++askingNext;
  const all = new Set(members);
  const missing = new Set(members);
  const finish = () => {
    clearTimeout(timer);
    asking.delete(number);
  };
  const without = (member) => {
    if (!missing.delete(member) || missing.size > 0 || !done) return;
    finish();
    done();
  };
  const timer = setTimeout(() => {
    finish();
    late(missing.size);
  }, timeout);
  asking.set(number, {
    answer(from, message) {
      if (!all.has(from)) return;
      answered(message);
      without(from);
    },
    leave(from) {
      all.delete(from);
      if (missing.has(from)) left();
      without(from);
    },
  });
  return number;
}

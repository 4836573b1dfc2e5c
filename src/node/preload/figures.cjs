// --- Figures --------------------------------------------------------------------------------------------------------
//
// haft gives each worker a page of memory, in which this writes once a second how the process is (docs/scoreboard.md).

/** The figures of a page, in its order; those of `closedMemory` and `lost` are other programs'. */
const FIGURES = [
  'openConnections', 'connections', 'polling', 'websocket', 'otherSessions', 'opened', 'upgrades', 'messagesIn', 'messagesOut',
  'bytesIn', 'bytesOut', 'delayP50', 'delayP99', 'delayMax', 'heapUsed', 'heapLimit', 'closedPingTimeout', 'closedTransport',
  'closedError', 'closedByServer', 'closedOther', 'refused0', 'refused1', 'refused2', 'refused3', 'refused4', 'refused5',
  'refusedOther', 'uncaught', 'closedMemory0', 'closedMemory1', 'closedMemory2', 'lost0', 'lost1', 'recovered',
];
/** Bytes that are written, and milliseconds from one writing to the next, and of the event loop's samples. */
const PAGE_RECORD = 512;
const WRITE_EVERY = 1000;
const SAMPLE_EVERY = 20;
/** Why Engine.IO ends a session, in its own words. */
const REASONS = {
  'ping timeout': 'closedPingTimeout',
  'transport close': 'closedTransport',
  'transport error': 'closedError',
  'parse error': 'closedError',
  'forced close': 'closedByServer',
  'server shutting down': 'closedByServer',
};
const TRANSPORTS = { polling: 'polling', websocket: 'websocket' };

/** What is known, by its name. */
const figures = {};
/** The page as haft describes it: read before the environment is cleaned. */
const givenPage = String(env.HAFT_SCOREBOARD || '');
/** Servers that have listened. */
const servers = new Set();
/** The same, those that are closed too. */
const everListened = new WeakSet();
/** Sockets that are open, each with the bytes that are counted already: in, out. */
const sockets = new Map();
/** Of how many open sockets the bytes are counted at a time: a million of them cost no more than these. */
const COUNTED_AT_ONCE = 500;
let turn = sockets.entries();

function noteServer(server) {
  servers.add(server);
  if (everListened.has(server) || typeof server.on !== 'function') return;
  everListened.add(server);
  if (figures.connections === undefined) [figures.connections, figures.bytesIn, figures.bytesOut] = [0, 0, 0];
  server.on('connection', noteSocket);
}

function noteSocket(socket) {
  attempt(() => {
    figures.connections += 1;
    if (sockets.has(socket)) return;
    sockets.set(socket, [0, 0]);
    socket.on('close', countLast);
  });
}

/** Counts what has gone through a socket since the last time. */
function countBytes(socket, counted) {
  const [read, written] = [socket.bytesRead || 0, socket.bytesWritten || 0];
  figures.bytesIn += Math.max(0, read - counted[0]);
  figures.bytesOut += Math.max(0, written - counted[1]);
  [counted[0], counted[1]] = [read, written];
}

function countLast() {
  attempt(() => {
    const counted = sockets.get(this);
    if (counted) countBytes(this, counted);
    sockets.delete(this);
  });
}

/** Counts the next open sockets: after some seconds, all have had their turn. */
function countNext() {
  for (let rest = Math.min(COUNTED_AT_ONCE, sockets.size); rest > 0; rest -= 1) {
    let next = turn.next();
    if (next.done) {
      turn = sockets.entries();
      next = turn.next();
      if (next.done) return;
    }
    const [socket, counted] = next.value;
    countBytes(socket, counted);
    // The program may have taken its listeners away.
    if (socket.destroyed) sockets.delete(socket);
  }
}

const isMessage = (packet) => Boolean(packet) && packet.type === 'message';

function countIn(packet) {
  if (isMessage(packet)) figures.messagesIn += 1;
}

function countOut(packet) {
  if (isMessage(packet)) figures.messagesOut += 1;
}

/** Counts an engine's sessions from now on; once for each. */
function countSessions(engine) {
  if (figures.opened === undefined) {
    const names = ['polling', 'websocket', 'otherSessions', 'opened', 'upgrades', 'messagesIn', 'messagesOut', ...Object.values(REASONS), 'closedOther', 'refusedOther'];
    for (const name of [...names, ...[0, 1, 2, 3, 4, 5].map((code) => `refused${code}`)]) figures[name] = 0;
  }
  engine.on('connection', (session) => {
    attempt(() => {
      let kind = kindOf(session);
      figures[kind] += 1;
      figures.opened += 1;
      session.on('packet', countIn);
      session.on('packetCreate', countOut);
      session.once('upgrade', () => attempt(() => {
        figures.upgrades += 1;
        figures[kind] -= 1;
        kind = kindOf(session);
        figures[kind] += 1;
      }));
      session.once('close', (reason) => attempt(() => {
        figures[kind] -= 1;
        figures[REASONS[reason] || 'closedOther'] += 1;
      }));
    });
  });
  engine.on('connection_error', ({ code } = {}) => attempt(() => {
    figures[Number.isInteger(code) && code >= 0 && code <= 5 ? `refused${code}` : 'refusedOther'] += 1;
  }));
}

/** Counts a client that is recovered, if one is; yields what was given. */
function countRecovered(session) {
  if (session && typeof session.then === 'function') return session.then(countRecovered);
  if (session) figures.recovered += 1;
  return session;
}

function kindOf({ transport }) {
  return TRANSPORTS[transport && transport.name] || 'otherSessions';
}

/** Takes the page that haft has given, if this process has it. */
function takePage() {
  const fs = require('fs');
  const [number, device, inode] = givenPage.split(':');
  if (!inode) return undefined;
  const isPage = (fd) => {
    const stat = fs.fstatSync(fd, { bigint: true });
    return String(stat.dev) === device && String(stat.ino) === inode;
  };
  const given = Number(number);
  try {
    if (!isPage(given)) return undefined;
  } catch {
    return undefined; // a wrapper has closed it
  }
  try {
    // Another descriptor of the same page, which what the program starts does not inherit.
    const own = fs.openSync(`/proc/self/fd/${given}`, 'r+');
    if (isPage(own)) {
      fs.closeSync(given);
      return { fs, fd: own };
    }
    fs.closeSync(own);
  } catch {
    // Without /proc, or under Node's permission model, it is written by the first.
  }
  return { fs, fd: given };
}

/** Writes the page from now on, as long as the process lives. */
function tellFigures() {
  const page = takePage();
  if (!page) return;
  const { monitorEventLoopDelay } = require('perf_hooks');
  const { getHeapStatistics } = require('v8');
  const { setInterval } = require('timers');
  const delay = monitorEventLoopDelay({ resolution: SAMPLE_EVERY });
  delay.enable();
  const record = Buffer.alloc(PAGE_RECORD);
  record.write('haftsb01', 0, 'latin1');
  record.writeUInt32LE(FIGURES.length, 24);
  let sequence = 0;
  let failed = false;
  // Until there is a sample: a loop that stands still from its first second on is to be seen, too.
  [figures.delayP50, figures.delayP99, figures.delayMax] = [0, 0, 0];
  figures.uncaught = 0;

  function put(at, value) {
    const known = value !== undefined && Number.isFinite(value);
    record.writeUInt32LE(known ? Math.max(0, value) % 2 ** 32 >>> 0 : 0xffffffff, at);
    record.writeUInt32LE(known ? Math.floor(Math.max(0, value) / 2 ** 32) >>> 0 : 0xffffffff, at + 4);
  }

  function write() {
    if (failed) return;
    figures.openConnections = countOpen();
    if (figures.bytesIn !== undefined) countNext();
    // A sample is the time from one to the next.
    const late = (nanoseconds) => Math.max(0, nanoseconds - SAMPLE_EVERY * 1e6);
    // A loop that was blocked for the whole second has no sample yet: the next second includes the delay.
    if (delay.max > 0) {
      [figures.delayP50, figures.delayP99, figures.delayMax] = [delay.percentile(50), delay.percentile(99), delay.max].map(late);
    }
    delay.reset();
    const heap = getHeapStatistics();
    [figures.heapUsed, figures.heapLimit] = [heap.used_heap_size, heap.heap_size_limit];
    sequence += 1;
    put(8, sequence);
    put(16, Date.now());
    FIGURES.forEach((name, at) => put(32 + 8 * at, figures[name]));
    put(PAGE_RECORD - 8, sequence);
    try {
      page.fs.writeSync(page.fd, record, 0, PAGE_RECORD, 0);
    } catch {
      failed = true; // the program has closed it
    }
  }

  write();
  setInterval(() => attempt(write), WRITE_EVERY).unref();
  // The last figures, and what it died of, stay for haft to read.
  process.on('uncaughtExceptionMonitor', () => attempt(() => {
    figures.uncaught += 1;
    write();
  }));
  process.on('exit', () => attempt(write));
}

function countOpen() {
  let open = 0;
  for (const server of servers) {
    const { _connections: connections = 0, listening } = server;
    open += connections;
    if (!listening && connections === 0) servers.delete(server);
  }
  return open;
}

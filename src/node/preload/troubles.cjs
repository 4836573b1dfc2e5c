// --- What goes round haft -------------------------------------------------------------------------------------------
//
// Some ways of listening, and of keeping sessions, cannot be sticky below haft. The preload reports each once, so that
// haft can say what to change.

const troubles = new Set();

function tellTrouble(type) {
  if (troubles.has(type)) return;
  troubles.add(type);
  say({ act: 'trouble', type });
}

/** To be called when the process begins. */
function watchListening() {
  const net = require('net');
  wrap(net.Server.prototype, 'listen', (server, [options]) => {
    noteServer(server);
    if (options === null || typeof options !== 'object') return;
    if (options.exclusive) tellTrouble('exclusive');
    if (options.reusePort) tellTrouble('reuse_port');
    const { BoundSocket } = net;
    const isBound = (value) => typeof BoundSocket === 'function' && value instanceof BoundSocket;
    if (isBound(options) || isBound(options.handle)) tellTrouble('bound_socket');
  });
  wrap(require('child_process'), 'fork', () => tellTrouble('fork'));
  // What an ECMAScript module imports by name is a copy.
  const { syncBuiltinESMExports } = require('module');
  if (syncBuiltinESMExports) syncBuiltinESMExports();
}

/** By this channel threads report to the main thread. */
const THREADS = 'haft: threads';

/** To be called in the main thread: a program may have servers in threads, which have no channel to haft. */
function watchThreads() {
  process.once('worker', () => attempt(() => {
    const { BroadcastChannel } = require('worker_threads');
    const channel = new BroadcastChannel(THREADS);
    channel.onmessage = () => attempt(() => tellTrouble('thread'));
    channel.unref();
  }));
}

/** To be called in a thread. What listens at any free port of its own is not what clients look for. */
function watchThread() {
  const { isMainThread, BroadcastChannel } = require('worker_threads');
  if (isMainThread || env.HAFT_SLOT === undefined) return;
  wrap(require('net').Server.prototype, 'listen', (_, [options]) => {
    const port = options !== null && typeof options === 'object' ? options.port : options;
    if (!(Number(port) > 0)) return;
    const channel = new BroadcastChannel(THREADS);
    channel.postMessage(port);
    channel.close();
  });
}

/**
 * To be called in a worker: the program may think that it is the primary, and start workers of its own. `settle` opens
 * the channel, if that waits.
 */
function watchForking(settle = () => {}) {
  const cluster = require('cluster');
  for (const name of ['fork', 'setupPrimary', 'setupMaster']) {
    if (name in cluster) continue;
    const value = () => {
      settle();
      attempt(() => tellTrouble('primary'));
      throw new TypeError(`cluster.${name} is not a function`);
    };
    Object.defineProperty(cluster, name, { value, writable: true, configurable: true });
  }
}

/** A request of Engine.IO's, where none was seen to be loaded: it is a part of the program's own file. */
function seeRequest({ url }) {
  if (typeof url !== 'string' || !url.includes('EIO=') || sawEngine) return;
  if (tagging) tellTrouble('bundled');
  if (sharesRooms && !isOnlyWorker && !sawServer) tellTrouble('rooms_bundled');
}

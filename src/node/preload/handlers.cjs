// --- A program that ends by itself ----------------------------------------------------------------------------------
//
// A program that handles a signal, or uses a package for that, closes its servers then. When haft replaces a worker, Node
// has closed them before. For the program they are open until it closes them itself, once: as it would be alone, it finds
// them listening, and its close succeeds when their connections have ended.

/** What Node has closed for haft, and the program has not yet: `{ heard }`, the listeners that have run. */
const closedForHaft = new WeakMap();
/** Classes whose `close` is seen. */
const closable = new Set();
/** True while Node closes what haft asked it to close. */
let isClosing = false;

/** To be called before Node closes all servers, and `allClosed` after it. */
function allWillClose() {
  const { moduleLoadList } = process;
  watchClose(require('net').Server.prototype);
  if (!moduleLoadList || moduleLoadList.includes('NativeModule dgram')) watchClose(require('dgram').Socket.prototype);
  isClosing = true;
  nextTick(allClosed);
}

function allClosed() {
  isClosing = false;
}

function watchClose(prototype) {
  if (closable.has(prototype)) return;
  closable.add(prototype);
  const property = Object.getOwnPropertyDescriptor(prototype, 'close');
  const { value: close } = property;
  const closing = function (callback) {
    if (isClosing) attempt(() => keepForProgram(this));
    // With a handle it is one that has begun to listen again.
    else if (!this._handle && closedForHaft.has(this)) return closeForProgram(this, callback);
    return close.apply(this, arguments);
  };
  Object.defineProperty(prototype, 'close', { ...property, value: closing });
}

function keepForProgram(server) {
  if (closedForHaft.has(server)) return;
  const kept = { heard: undefined, shown: [] };
  const show = (name, property) => {
    if (Object.prototype.hasOwnProperty.call(server, name)) return;
    kept.shown.push(name);
    Object.defineProperty(server, name, { ...property, configurable: true });
  };
  const address = server.address();
  closedForHaft.set(server, kept);
  server.prependOnceListener('close', () => (kept.heard = new Set(server.rawListeners('close'))));
  show('address', { value: () => address, writable: true });
  if ('listening' in server) show('listening', { get: () => true });
}

function closeForProgram(server, callback) {
  const { heard, shown } = closedForHaft.get(server);
  closedForHaft.delete(server);
  shown.forEach((name) => delete server[name]);
  if (typeof callback === 'function') server.once('close', callback);
  // Its connections have ended: only listeners added since then still have to run.
  if (heard) {
    nextTick(() => {
      for (const listener of server.rawListeners('close')) if (!heard.has(listener)) listener.call(server);
    });
  }
  return server;
}

/** A program is not to end for want of anything else to do before the signal has come that it waits for. */
function waitForSignal(signal, within) {
  // Where the program handles one too, it may come in place of the other. Where not, it ends the program.
  const names = [...new Set([signal, ...ENDING])].filter((name) => process.listenerCount(name) > 0);
  if (!names.includes(signal)) return;
  const waiting = setTimeout(() => {}, Math.min(within, LONGEST));
  const removed = (name) => {
    if (names.includes(name) && process.listeners(name).every((listener) => listener === come)) come();
  };
  const come = () => {
    clearTimeout(waiting);
    process.removeListener('removeListener', removed);
    names.forEach((name) => process.removeListener(name, come));
  };
  names.forEach((name) => process.prependListener(name, come));
  process.on('removeListener', removed);
}

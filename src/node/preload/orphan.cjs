// --- A life without a master ----------------------------------------------------------------------------------------
//
// Node ends a worker whose primary has gone. With haft it goes on with the connections that it has, until the last has
// ended or the drain time is over. Nothing is left to end it: it does so itself.

/** How long a worker may take to finish, if haft has set no limit. */
const DRAIN = 25000;
/** Milliseconds between two looks whether a connection is left. */
const LOOK = 250;
/** Milliseconds more than haft would leave: with SIGTERM it gives 2 s. */
const AFTER_ALL = 4000;

/** Milliseconds for which an error of writing may be due to the master's death. */
const PATIENCE = 1000;

/** What errors say that the other end is gone. */
const GONE = ['EPIPE', 'ECONNRESET', 'ERR_IPC_CHANNEL_CLOSED', 'ERR_IPC_DISCONNECTED'];

/** A mark on each handle of a connection that haft has handed over. */
const HANDED = Symbol('handed over by haft');

const { exit, nextTick } = process;
let orphaned = false;

/** To be called in a worker, when it starts. */
function outliveMaster() {
  const channel = channelOf(process);
  const onread = channel && channel.onread;
  const drainTime = Number(env.HAFT_DRAIN_TIMEOUT) || DRAIN;
  // Before Node's own listener, which ends the process.
  process.prependListener('disconnect', () => {
    attempt(() => {
      const { worker } = require('cluster');
      // Node lets go of its reader at the end of the channel, and not if the program has left.
      const hasEnded = onread && channel.onread !== onread;
      if (limit === undefined) endWithin(drainTime);
      if (hasEnded) goOnAlone(worker, drainTime);
    });
  });
  forgiveWrites();
}

/** The handle of the channel that a process has. */
function channelOf(target) {
  const values = Object.getOwnPropertySymbols(target).map((symbol) => target[symbol]);
  return values.find((value) => value && typeof value.writeUtf8String === 'function');
}

/** The master has died. */
function goOnAlone(worker, drainTime) {
  orphaned = true;
  nobodyListens();
  const serves = !worker.exitedAfterDisconnect;
  // Node reads it next, and would end the process.
  worker.exitedAfterDisconnect = true;
  // Connections that still wait on the lane need the servers, and no other process has them.
  afterLane(() => {
    if (serves) attempt(() => finishAlone(worker, drainTime));
    const look = () => {
      if (now() >= end || attempt(connectionsLeft) === 0) exit.call(process, 0);
      setTimeout(look, LOOK);
    };
    setTimeout(look, LOOK);
  });
}

function finishAlone(worker, drainTime) {
  closeServersGently();
  attempt(allWillClose);
  worker.disconnect();
  allClosed();
  // No operator waits for the end, so what there is goes on for a while before the goodbyes begin.
  sayGoodbyes(drainTime * ALONE, drainTime * (1 - ALONE) * TELLING);
  endWithin(drainTime);
}

/** The number of client connections; one if it is unknown. */
function connectionsLeft() {
  const { Server, Socket } = require('net');
  if (typeof process._getActiveHandles !== 'function') return 1;
  const isOfClient = (handle) => {
    if (!(handle instanceof Socket) || handle.destroyed) return false;
    return (handle._handle && handle._handle[HANDED]) || handle.server instanceof Server;
  };
  return process._getActiveHandles().filter(isOfClient).length;
}

/** When the process is to have ended, and what sees to it. */
let end = Infinity;
let limit;

/** haft would have ended this process soon after. If it is still there then, it is because haft is not. */
function endWithin(milliseconds) {
  end = now() + milliseconds;
  clearTimeout(limit);
  limit = later(() => exit.call(process, 0), milliseconds + AFTER_ALL);
}

/** What is sent to the master from now on is lost, and no reason to fail. Nor is it to leave it once more. */
function nobodyListens() {
  process.disconnect = () => {};
  process.send = (...args) => {
    const callback = args.find((arg) => typeof arg === 'function');
    const error = Object.assign(new Error('Channel closed'), { code: 'ERR_IPC_CHANNEL_CLOSED' });
    if (callback) nextTick(callback, error);
    return false;
  };
}

/**
 * Standard output and error are pipes to haft, and the channel is one. Something may be written there between its death
 * and the moment in which the process learns of it, and after that: such an error would end the program.
 */
function forgiveWrites() {
  for (const name of ['stdout', 'stderr']) attempt(() => forgiveStream(name));
  const { worker } = require('cluster');
  // Node gives it the errors of the process, which are those of the channel.
  worker.on('error', (error) => {
    // It is an uncaught error but for this listener, and stays one unless the master turns out to be dead.
    if (worker.listenerCount('error') > 1) return;
    if (!isBroken(error)) throw error;
    unlessOrphaned(() => {
      throw error;
    });
  });
}

function isBroken(error) {
  return Boolean(error) && GONE.includes(error.code);
}

/** A master that dies closes one descriptor after the other: the channel may end a while after a pipe. */
function unlessOrphaned(work, otherwise = () => {}) {
  const until = now() + PATIENCE;
  const look = () => {
    if (orphaned) otherwise();
    else if (now() >= until) work();
    else later(look, STEP);
  };
  setImmediate(look);
}

/** Node makes the stream when it is first asked for, and so does this. */
function forgiveStream(name) {
  const property = Object.getOwnPropertyDescriptor(process, name);
  if (!property || !property.get || !property.configurable) return;
  let forgiven = false;
  const get = () => {
    const stream = property.get.call(process);
    if (!forgiven) {
      forgiven = true;
      attempt(() => ['_write', '_writev'].forEach((method) => forgive(stream, method)));
    }
    return stream;
  };
  Object.defineProperty(process, name, { ...property, get });
}

/** A stream learns of a write to a closed peer only if the master lives. */
function forgive(stream, method) {
  const write = stream[method];
  if (typeof write !== 'function') return;
  const forgiving = function (...args) {
    const done = args[args.length - 1];
    if (typeof done !== 'function') return write.apply(this, args);
    const answered = (error) => {
      if (isBroken(error)) unlessOrphaned(() => done(error), () => done(null));
      else done(error);
    };
    return write.call(this, ...args.slice(0, -1), answered);
  };
  Object.defineProperty(stream, method, { value: forgiving, writable: true, configurable: true });
}

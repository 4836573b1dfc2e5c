// --- The channel below a wrapper ------------------------------------------------------------------------------------
//
// A program that haft starts as plain `node FILE` has its channel from Node itself. Whatever is started in another way
// (npm, yarn, npx, sh, nodemon, tsx) may be Node, too, and would take a channel that Node knows by its environment. So
// haft gives it under a high number and another name, and the process that serves takes it here.
//
// Which process that is shows by what it does: it is the first that looks at Node's cluster module, as every listen()
// does. A wrapper never listens; those that do, on a socket of their own, are known by name.

/** Packages that start the program as a process of its own. */
const WRAPPERS = new Set([
  'npm', 'npx', 'yarn', 'pnpm', 'corepack', 'tsx', 'nodemon', 'node-dev', 'ts-node-dev', 'dotenv-cli', 'dotenvx', 'env-cmd',
  'cross-env', 'concurrently', 'npm-run-all', 'npm-run-all2', 'wireit', 'turbo', 'nx', 'lerna', 'cross-spawn', 'foreman',
]);
/** Their programs, where they are not in a folder of the package's name. */
const WRAPPER = /^(npm(-cli)?|npx(-cli)?|yarn(pkg)?(-[\d.]+)?|pnpm|pnpx|corepack)(\.[cm]?js)?$/;

/** Whether this process is one of a package manager or of another known wrapper. */
function isWrapper() {
  const script = String(process.argv[1]);
  if (WRAPPER.test(script.split('/').pop())) return true;
  // A program may be started by a link in node_modules/.bin.
  const path = attempt(() => require('fs').realpathSync(script), () => {}) || script;
  const [, name] = /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path) || [];
  return WRAPPERS.has(String(name).split('/').pop());
}

/** The channel as haft describes it in the environment: numbers and kinds, or nothing. */
function offered() {
  const [fd, inode, token, serialization, when] = String(env.HAFT_NODE_CHANNEL || '').split(':');
  if (!when || !require('worker_threads').isMainThread) return undefined;
  return { fd: Number(fd), inode, token: Number(token), serialization, when };
}

/**
 * Has `begin` called once this process has taken the channel. Until then `search` sees to what is loaded, and the
 * environment stays as it is, for the process that will serve.
 */
function awaitChannel(offer, begin) {
  if (isWrapper()) return;
  attempt(() => moveInspector(Number(env.HAFT_SLOT)));
  // The module decides by this, when it is first loaded, which half of a cluster it is.
  env.NODE_UNIQUE_ID = env.HAFT_WORKER;
  const cluster = require('cluster');
  delete env.NODE_UNIQUE_ID;
  const names = ['isWorker', 'isPrimary', 'isMaster', 'worker'].filter((name) => name in cluster);
  const values = names.map((name) => cluster[name]);
  let settled = false;
  const settle = () => {
    if (settled) return;
    settled = true;
    names.forEach((name, at) => {
      Object.defineProperty(cluster, name, { value: values[at], writable: true, enumerable: true, configurable: true });
    });
    if (attempt(() => takeChannel(offer))) {
      // The worker's number is read here.
      env.NODE_UNIQUE_ID = env.HAFT_WORKER;
      attempt(() => cluster._setupWorker());
      delete env.NODE_UNIQUE_ID;
      begin();
    } else {
      // A child of the program's, or one that cannot have the channel: it is as if haft were not there.
      Object.assign(cluster, { isWorker: false, isPrimary: true }, 'isMaster' in cluster && { isMaster: true });
      tagging = false;
      send = () => {};
      pending.length = 0;
      attempt(cleanEnvironment);
    }
  };
  // Before there are getters: in older versions of Node each require() of the module reads all that it has.
  watchForking(settle);
  for (const name of names) {
    const get = () => {
      settle();
      return cluster[name];
    };
    const set = (value) => {
      settle();
      cluster[name] = value;
    };
    Object.defineProperty(cluster, name, { get, set, enumerable: true, configurable: true });
  }
  if (offer.when === 'now') settle();
}

/** Opens the channel, if it is there and no other process was first. */
function takeChannel({ fd, inode, token, serialization }) {
  const fs = require('fs');
  const isThere = (() => {
    try {
      const stat = fs.fstatSync(fd);
      return stat.isSocket() && String(stat.ino) === inode;
    } catch {
      return false;
    }
  })();
  if (!isThere) {
    process.stderr.write(
      'haft: this process gets no connections: what started it has closed the descriptors that it did not know, and '
      + 'with them the channel to haft. Give haft the command that this starts (haft -- node FILE)\n',
    );
    return false;
  }
  // One byte, and the end after it: only the first process gets it.
  if (fs.readSync(token, Buffer.alloc(1), 0, 1, null) !== 1) return false;
  fs.closeSync(token);
  const leave = process.channel && leaveWrapper();
  require('child_process')._forkChild(fd, serialization);
  if (leave) leave();
  sayEnd();
  return true;
}

/** What has started this process has copies of the channel: haft does not see when it is closed here. */
function sayEnd() {
  const { disconnect } = process;
  process.disconnect = function () {
    attempt(() => say({ act: 'left' }));
    return disconnect.call(process);
  };
}

/** What Node's own watcher (`--watch`) is sent: the files that the program has loaded. */
const WATCHED = ['watch:require', 'watch:import'];

/**
 * A wrapper may have a channel of its own to this process (`fork`, `node --watch`). It would keep the process from ending
 * by itself, and with two channels Node would acknowledge each descriptor twice. Returns what is to be called when haft's
 * channel is open.
 */
function leaveWrapper() {
  const { _send: sendToWrapper } = process;
  process.channel.unref();
  process.removeAllListeners('internalMessage');
  return () => {
    const { send: sendToHaft } = process;
    // What the program sends is for what has started it, as far as that can be known: haft looks for what it knows.
    say({ act: 'forked' });
    process.send = function (message, ...rest) {
      const isSent = process.connected && sendToWrapper.call(process, message, undefined, { swallowErrors: true });
      const isWatched = message !== null && typeof message === 'object' && WATCHED.some((name) => name in message);
      return isWatched ? isSent : sendToHaft.call(process, message, ...rest);
    };
  };
}

/** What is for this process alone is not for what it starts. */
function cleanEnvironment() {
  takeOutOfOptions();
  delete env.HAFT_NODE_CHANNEL;
  delete env.HAFT_TAG_KEY;
  delete env.HAFT_ROOMS_LINK;
  delete env.HAFT_SCOREBOARD;
}

// haft's part inside a worker that runs an unmodified Node program: NODE_OPTIONS="--require THIS FILE", or by
// a descriptor where Node cannot read a file (../preload.rs). It does sixteen things, and leaves the program as it is otherwise:
//
// 1. Addresses. Where haft learnt a client's address from a proxy, the socket shows that address: socket.remoteAddress,
//    and so req.ip of Express and handshake.address of Socket.IO.
// 2. Tags (tags.cjs, engines.cjs). An Engine.IO session id gets haft's tag, so that haft finds the session's worker again
//    without remembering anything: BASE, the layout's version (1), the host's name (00 if it has none), and base64url(slot: 2 bytes,
//    generation: 4 bytes, first 6 bytes of HMAC-SHA256(key, all that stands before them)), numbers big-endian. BASE is
//    the program's own id, whatever makes it.
// 3. News. The preload reports how many Engine.IO sessions the process has, and when a replaced worker has none left.
// 4. Ports. Where haft listens on another port than the program asked for, server.address() shows haft's.
// 5. Goodbyes (goodbyes.cjs). A worker that is drained ends its sessions and WebSockets one by one, not all at the end.
// 6. A life without a master (orphan.cjs). When the master dies, the process keeps its connections for a while.
// 7. Signals (signals.cjs). haft learns which signals the program handles itself.
// 8. Recovery (recovery.cjs). A Socket.IO client that lost its connection is recovered in whatever worker it comes back
//    to.
// 9. Its own end (handlers.cjs). What Node has closed for haft, the program closes once more, and that succeeds.
// 10. The channel (channel.cjs). Below npm, sh and the like, the process that serves opens it.
// 11. The lane (lane.cjs). Connections come with a few bytes each, and are confirmed together.
// 12. Troubles (troubles.cjs). Each way of listening that bypasses haft is reported once.
// 13. Rooms (rooms.cjs). What Socket.IO sends to a room or to all clients reaches those of all workers.
// 14. Figures (figures.cjs). A page of memory shows haft the state of the process.
// 15. Paths (paths.cjs). haft learns where each Engine.IO listens, and finds its sessions there.
// 16. The inspector (inspect.cjs). Below a wrapper, each worker's has a port of its own.
//
// The files of this folder are joined to one, in the order that ../preload.rs has, and start.cjs begins it. Node 14 and
// later; nothing but Node. An error in here costs what this does, never the program. What it cannot see: an Engine.IO
// that a bundler has put into the program's own file. Its sessions have no tag.

'use strict';

/** Messages of haft's, to us and from us. Node takes them for its own, so that no program sees them. */
const CMD = 'NODE_HAFT';
/**
 * Milliseconds for which the number of sessions is not reported again, and for which there must be none to be idle: one
 * may be about to begin, on a connection that came before `linger`.
 */
const PAUSE = 100;
/** The most milliseconds that a timer of Node's takes; with more it does not wait at all. */
const LONGEST = 2 ** 31 - 1;
/** What a tag begins with: the version of its layout, and the host's name, which is `00` where it has none. */
const VERSION = '1';
const NAMELESS = '00';
const HEAD = 3;
/** Length of a tag. */
const TAG = HEAD + 16;

// The program may put functions of its own in their place.
const { clearTimeout, setImmediate, setTimeout } = require('timers');
const { env } = process;

/** Runs what must never break the program. The first error is reported, in one line. */
function attempt(work, failed = complain) {
  try {
    return work();
  } catch (error) {
    failed(error);
  }
}

let complained = false;

function complain(error) {
  if (complained) return;
  complained = true;
  try {
    const what = String((error && error.stack) || error).replace(/\s*\n\s*/g, ' ');
    process.stderr.write(`haft: the preload has failed in part, and the program goes on without that: ${what}\n`);
  } catch {
// Standard error is closed.
  }
}

// --- Where this runs ------------------------------------------------------------------------------------------------

/** What the program starts is no worker of haft's, and this file may be gone by then. */
function takeOutOfOptions() {
  // Node's rule: blanks part the words, but for those within quotation marks, in which a backslash escapes.
  const words = (env.NODE_OPTIONS || '').match(/(?:"(?:\\.|[^"\\])*"|[^ "])+/g) || [];
  const plain = (word) => word.replace(/"((?:\\.|[^"\\])*)"/g, (_, inside) => inside.replace(/\\(.)/g, '$1'));
  const isThis = (option, value) => {
    if (option === '--import') return value.startsWith('data:text/javascript,/*haft*/');
    return option === '--require' && plain(value) === __filename;
  };
  const at = words.findIndex((word, i) => i > 0 && isThis(words[i - 1], word));
  if (at < 0) return;
  words.splice(at - 1, 2);
  if (words.length > 0) env.NODE_OPTIONS = words.join(' ');
  else delete env.NODE_OPTIONS;
}

// --- Messages from haft ---------------------------------------------------------------------------------------------

/** To be called before a connection; only the first call does something. */
let firstConnection = () => {};

/** `search` is called before each server and before the first connection. */
function listenToHaft(search) {
  firstConnection = () => {
    firstConnection = () => {};
    search();
  };
  // Before Node's own listener, which makes the socket of the handle.
  process.prependListener('internalMessage', (message, handle) => {
    attempt(() => {
      if (!message) return;
      if (message.cmd === 'NODE_HANDLE') {
        if (handle && (message.msg || {}).cmd !== CMD) handle[HANDED] = true;
        if (message.haft && handle) tellAddress(handle, message.haft);
        firstConnection();
      } else if (message.cmd === 'NODE_CLUSTER') {
        if (message.errno !== undefined) {
          search();
          expected = message.haft && message.haft.server;
          if (message.haft && message.haft.port && message.sockname) tellPort(message.sockname, message.haft.port);
          else if (message.haft && handle) tellAsked(handle, message.haft.asked);
        } else if (message.act === 'disconnect' && message.haft) {
          attempt(allWillClose);
          drain(message.haft);
        }
      } else if (message.cmd === CMD && message.act === 'lane') {
        if (handle) openLane(handle);
      } else if (message.cmd === CMD && message.act === 'linger') {
        linger(message.within);
      } else if (message.cmd === CMD && message.act === 'rooms' && handle) {
        takeLink(handle);
      } else if (message.cmd === CMD && message.act === 'pass' && answerWith) {
        answerWith(message).catch(complain);
      }
    });
  });
  // And after it.
  process.on('internalMessage', () => {
    allClosed();
    expected = undefined;
  });
}

/** In every version of Node a net.Socket asks its handle for the peer, under TLS too. An unknown port is 0. */
function tellAddress(handle, { address, family, port }) {
  handle.getpeername = (out) => {
    Object.assign(out, { address, family, port });
    return 0;
  };
}

/** Node compares the port with the one that was asked for as soon as it has the message, and never again. */
function tellPort(sockname, port) {
  process.nextTick(() => (sockname.port = port));
}

/** A listener on another port: it reports the requested port for as long as Node compares them. */
function tellAsked(handle, port) {
  const { getsockname } = handle;
  handle.getsockname = function (out) {
    const error = getsockname.call(this, out);
    if (!error) out.port = port;
    return error;
  };
  process.nextTick(() => delete handle.getsockname);
}

// --- Messages to haft ----------------------------------------------------------------------------------------------

/** Engines that have had sessions since the last count found them without. */
const busy = new Set();
/** Engines that are known. */
const known = new WeakSet();
/** Whether ids are tagged: sessions are reported to haft only then. */
let tagging = false;
let saidTags = false;
/** Whether the program has loaded an engine that is known. */
let sawEngine = false;
/** The number of sessions that haft knows. */
let reported = 0;
/** Runs while the number must not be reported again. */
let timer;
let lingering = false;
/** Running while there is no session, in case that one begins. */
let ending;
let saidIdle = false;

/** Node's own function, once the channel is open: the program may put another one in its place. */
let send;
/** The number that was last due. */
const pending = [];

function say(message) {
  if (!send) pending.push(message);
  // With a function to call, Node gives an error to that instead of throwing it.
  else if (process.connected) send.call(process, { cmd: CMD, ...message }, undefined, undefined, () => {});
}

/** To be called when the channel is open. */
function sayPending() {
  ({ send } = process);
  pending.splice(0).forEach(say);
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
  if (!tagging) return;
  attempt(() => {
    const sessions = count();
    if (sessions !== reported && timer === undefined) {
      report(sessions);
      timer = later(() => {
        timer = undefined;
        changed();
      });
    }
    if (sessions > 0) {
      clearTimeout(ending);
      ending = undefined;
    } else if (lingering && !saidIdle && ending === undefined) {
      ending = later(() => attempt(sayIdle));
    }
  });
}

/** haft sends no new session from now on, and wants to know when the last has ended: `within` milliseconds at most. */
function linger(within) {
  lingering = true;
  if (within > 0) attempt(() => sayGoodbyes(within * ALONE, within * (1 - ALONE) * TELLING));
  if (saidTags) changed();
  else sayIdle();
}

function sayIdle() {
  saidIdle = true;
  if (reported !== 0) report(0);
  say({ act: 'idle' });
}

function report(sessions) {
  reported = sessions;
  say({ act: 'sessions', count: sessions });
}

/** After a pause, if there is still a process then: this keeps none alive. */
function later(work, pause = PAUSE) {
  return setTimeout(work, Math.min(pause, LONGEST)).unref();
}

/** An engine has come into being. */
function meet(engine) {
  if (known.has(engine)) return;
  known.add(engine);
  attempt(() => countSessions(engine));
  if (tagging && !saidTags) {
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

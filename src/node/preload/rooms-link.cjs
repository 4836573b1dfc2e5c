// --- The link between workers ---------------------------------------------------------------------------------------
//
// haft gives a worker that has a Socket.IO a socket of its own to all others, over the channel: what docs/protocol.md
// describes. It lives until the process ends, also when the channel has ended, and keeps no process alive.

/** Kinds of frames. From haft, READY is that a member has come, and LOST that one has gone. */
const [WELCOME, READY, MESSAGE, LOST] = [0, 1, 2, 3];
/** Length of what stands before a frame's body. */
const FRAME_HEAD = 13;
/** Longest frame. */
const MAX_FRAME = 64 << 20;
/** Most bytes that wait for haft to read them, or for the link to be there. */
const MAX_UNSENT = 32 << 20;
/** Stands for all other members. */
const ALL_OTHERS = '\0'.repeat(8);
/** How the body of a message is written: as JSON, as V8 does where there are bytes in it, or as haft does for an emitter. */
const [AS_JSON, AS_V8, AS_EMITTED] = [0x4a, 0x56, 0x45];

/** Present members by number (8 bytes as text), each with its own description. */
const peers = new Map();
/** What takes the messages of other members, and learns of each that has gone. */
const roomsHeard = { message: () => {}, gone: () => {} };

/** This member's own description. */
const ownPlace = { slot: Number(env.HAFT_SLOT), generation: Number(env.HAFT_GENERATION) };

let roomsSocket;
/** What the numbers of this host's members begin with. */
let ownHost;
let askedForLink = false;
/** Frames from before the link was there, their bytes, and how many were lost since the last report. */
let unlinked = [];
let unlinkedBytes = 0;
let unsent = 0;
let corked = false;
let isLinked = false;

/** Asks haft for the link, once. */
function openLink() {
  if (askedForLink) return;
  askedForLink = true;
  say({ act: 'rooms', replaces: replacedAdapter });
}

/** haft has given it. */
function takeLink(handle) {
  const { Socket } = require('net');
  const socket = new Socket({ handle, readable: true, writable: true });
  socket.unref();
  socket.on('data', cutter((...frame) => attempt(() => hearFrame(...frame))));
  socket.on('error', () => {});
  socket.on('close', () => attempt(() => {
    if (roomsSocket === socket) roomsSocket = undefined;
    const gone = [...peers.keys()];
    peers.clear();
    gone.forEach((member) => asProgram(() => roomsHeard.gone(member)));
  }));
  // What a program sends last, before it exits.
  process.prependListener('exit', () => attempt(uncork));
  roomsSocket = socket;
}

/** Takes pieces of a stream, and gives each frame in it to `found`: its kind, its member, its body. */
function cutter(found) {
  let pieces = [];
  let have = 0;
  let need = 4;
  return (piece) => {
    pieces.push(piece);
    have += piece.length;
    if (have < need) return;
    const bytes = pieces.length === 1 ? piece : Buffer.concat(pieces, have);
    let at = 0;
    for (;;) {
      need = bytes.length - at < 4 ? 4 : 4 + bytes.readUInt32BE(at);
      if (bytes.length - at < need) break;
      found(bytes[at + 4], bytes.latin1Slice(at + 5, at + FRAME_HEAD), bytes.subarray(at + FRAME_HEAD, at + need));
      at += need;
    }
    have = bytes.length - at;
    pieces = have > 0 ? [bytes.subarray(at)] : [];
  };
}

function hearFrame(kind, member, body) {
  if (kind === MESSAGE) {
    const message = unpackBody(body);
    asProgram(() => roomsHeard.message(member, message));
  } else if (kind === READY) {
    peers.set(member, attempt(() => JSON.parse(body.toString()), () => {}) || {});
  } else if (kind === LOST) {
    peers.delete(member);
    asProgram(() => roomsHeard.gone(member));
  } else if (kind === WELCOME) {
    ownHost = member.slice(0, 4);
    // Only now: this process reads, and answers.
    write(frameOf(READY, ALL_OTHERS, Buffer.from(JSON.stringify(ownPlace))));
    unlinked.splice(0).forEach(write);
    unlinkedBytes = 0;
    isLinked = true;
    tellUnsent();
  }
}

/** Runs what calls functions of the program: their errors are its own, and keep nothing of ours from going on. */
function asProgram(work) {
  try {
    work();
  } catch (error) {
    nextTick(() => {
      throw error;
    });
  }
}

function frameOf(kind, member, body) {
  const frame = Buffer.allocUnsafe(FRAME_HEAD + body.length);
  frame.writeUInt32BE(FRAME_HEAD - 4 + body.length, 0);
  frame[4] = kind;
  frame.latin1Write(member, 5, 8);
  body.copy(frame, FRAME_HEAD);
  return frame;
}

/** Sends a body to a member, or to all others. What cannot be sent is counted and reported to haft. */
function sendBody(member, body) {
  const waiting = isLinked && roomsSocket ? roomsSocket.writableLength : unlinkedBytes;
  if (isLinked && !roomsSocket) return;
  if (FRAME_HEAD + body.length > MAX_FRAME || waiting > MAX_UNSENT) {
    countUnsent();
    return;
  }
  const frame = frameOf(MESSAGE, member, body);
  if (isLinked) {
    write(frame);
  } else {
    unlinked.push(frame);
    unlinkedBytes += frame.length;
  }
}

function countUnsent() {
  unsent++;
  tellUnsent();
}

function tellUnsent() {
  if (unsent === 0 || !isLinked || !roomsSocket || roomsSocket.writableLength > MAX_UNSENT) return;
  const count = Buffer.alloc(8);
  count.writeUInt32BE(unsent, 4);
  unsent = 0;
  write(frameOf(LOST, count.latin1Slice(), Buffer.alloc(0)));
}

/** All that is sent in one turn goes in one system call. */
function write(frame) {
  if (!roomsSocket || roomsSocket.destroyed) return;
  if (!corked) {
    corked = true;
    roomsSocket.cork();
    nextTick(() => attempt(uncork));
  }
  roomsSocket.write(frame);
}

function uncork() {
  corked = false;
  if (roomsSocket) roomsSocket.uncork();
}

// --- Bodies of messages ---------------------------------------------------------------------------------------------

/** A message as bytes. Its values become what Socket.IO's own parser would send to a client: JSON and
 * bytes. `exactly`: the program has a parser of its own, which may distinguish more types.
 */
function packBody(message, exactly) {
  // For a circular value, JSON's error is clearer than a stack overflow.
  if (!exactly && attempt(() => !hasBytes(message), () => {}) !== false) {
    const text = JSON.stringify(message);
    const body = Buffer.allocUnsafe(1 + Buffer.byteLength(text));
    body[0] = AS_JSON;
    body.write(text, 1);
    return body;
  }
  const { serialize } = require('v8');
  const written = () => serialize(asSent(message));
  const bytes = exactly ? attempt(() => serialize(message), () => {}) || written() : written();
  return Buffer.concat([Buffer.from([AS_V8]), bytes]);
}

function unpackBody(body) {
  if (body[0] === AS_EMITTED) return unpackEmitted(body);
  return body[0] === AS_JSON ? JSON.parse(body.utf8Slice(1)) : require('v8').deserialize(body.subarray(1));
}

function isBytes(value) {
  return ArrayBuffer.isView(value) || value instanceof ArrayBuffer;
}

function hasBytes(value) {
  if (value === null || typeof value !== 'object') return false;
  if (isBytes(value)) return true;
  if (Array.isArray(value)) return value.some(hasBytes);
  if (typeof value.toJSON === 'function') return hasBytes(value.toJSON());
  for (const key in value) {
    if (Object.prototype.hasOwnProperty.call(value, key) && hasBytes(value[key])) return true;
  }
  return false;
}

/** What JSON would make of a value, but for the bytes in it. */
function asSent(value) {
  if (typeof value === 'function' || typeof value === 'symbol') return undefined;
  if (value === null || typeof value !== 'object' || isBytes(value)) return value;
  if (Array.isArray(value)) return value.map((each) => (each === undefined ? null : asSent(each)));
  if (typeof value.toJSON === 'function') return asSent(value.toJSON());
  const copy = {};
  for (const [key, each] of Object.entries(value)) {
    // `__proto__` as a key is a key.
    Object.defineProperty(copy, key, { value: asSent(each), writable: true, enumerable: true, configurable: true });
  }
  return copy;
}

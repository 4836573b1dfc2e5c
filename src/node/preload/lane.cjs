// --- The lane -------------------------------------------------------------------------------------------------------
//
// Node's own way to get a connection costs a line of JSON to be parsed, and two to be written. So haft gives the process
// a second socket, on which connections come with 56 bytes each: the layout's version; the family of the client's address,
// 4 or 6, or 0 where the kernel knows it; its port; the number of the server; the length of the address; the address as
// text. Numbers are little-endian. What is taken in one turn of the event loop is confirmed by one message. That is
// written before the loop waits again, and so before anything is read from a connection.
//
// haft sends a connection this way only for a server that `serves` named. Whatever is missing, connections come as Node's
// own primary would send them.

/** Length of what comes with a connection. */
const RECORD = 56;
/** The version of its layout. */
const LAYOUT = 1;
/** libuv's number for a pipe that takes descriptors. */
const IPC = 2;

/** `{ handle, server }` by number, of those that haft may use the lane for. */
const served = new Map();
/** What is kept as long as the process lives: Node and libuv point to it. */
let lane;
/** The number, assigned by haft, of the server that Node is about to make. */
let expected;
/** Connections taken since the last report to haft. */
let taken = 0;
/** All that have come. */
let arrived = 0;

/** To be called when the channel is open. */
function askForLane() {
  wrap(require('net').Server.prototype, '_listen2', (server) => () => attempt(() => serve(server)));
  const { disconnect } = process;
  // What was taken is confirmed as long as that can be done.
  process.disconnect = function () {
    attempt(confirm);
    return disconnect.apply(this, arguments);
  };
  process.on('exit', () => attempt(confirm));
  say({ act: 'lane' });
}

/** `given`: haft's socket, as a pipe that takes no descriptors. It stays open beside the one that does. */
function openLane(given) {
  const Pipe = given.constructor;
  const pipe = new Pipe(IPC);
  const buffer = Buffer.from(new ArrayBuffer(RECORD));
  if (lane || pipe.open(given.fd)) return;
  // With a buffer that one record fills, libuv reads on until nothing is left, instead of once in each turn.
  pipe.useUserBuffer(buffer);
  pipe.onread = takeConnection;
  lane = { given, pipe, buffer };
  pipe.readStart();
  pipe.unref();
  say({ act: 'open' });
}

/** A server of the cluster's has got its handle. */
function serve(server) {
  const { _handle: handle } = server;
  if (expected === undefined || !handle || typeof handle.onconnection !== 'function') return;
  served.set(expected, { handle, server });
  say({ act: 'serves', server: expected });
  expected = undefined;
}

function takeConnection() {
  const { pipe, buffer } = lane;
  const { pendingHandle: connection } = pipe;
  pipe.pendingHandle = null;
  // Called also when there is nothing to be read.
  if (buffer[0] !== LAYOUT) return;
  buffer[0] = 0;
  arrived++;
  const { handle, server } = served.get(buffer.readUInt32LE(4)) || {};
  // A program that has left gets no more: haft gives them to another. A dead master does not.
  const takes = connection && (process.connected || orphaned) && server && server._handle === handle
    && !(server.maxConnections != null && server._connections >= server.maxConnections);
  if (!takes) {
    if (connection) connection.close();
    confirm();
    say({ act: 'back' });
    return;
  }
  if (taken++ === 0) setImmediate(() => attempt(confirm));
  attempt(() => {
    connection[HANDED] = true;
    if (buffer[1]) tellAddress(connection, addressOf(buffer));
    firstConnection();
  });
  handle.onconnection(0, connection);
}

function addressOf(record) {
  return { address: record.latin1Slice(9, 9 + record[8]), family: `IPv${record[1]}`, port: record.readUInt16LE(2) };
}

function confirm() {
  if (taken === 0) return;
  const count = taken;
  taken = 0;
  say({ act: 'took', count });
}

/** Does it when all has been taken that had come on the lane until now: libuv reads some of it in each turn. */
function afterLane(work) {
  let before;
  const look = () => {
    if (!lane || before === arrived) return work();
    before = arrived;
    setImmediate(look);
  };
  setImmediate(look);
}

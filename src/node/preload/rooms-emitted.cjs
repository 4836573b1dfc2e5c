// --- What programs outside haft say of rooms --------------------------------------------------------------------------
//
// haft hears what @socket.io/redis-emitter publishes, and gives it to its workers: src/rooms/emitter.rs has the format.

/** A body in pieces: the order, the values that go with it, and the bytes in these. */
function unpackEmitted(body) {
  const pieces = [];
  for (let at = 1; at < body.length;) {
    const begin = at + 4;
    at = begin + body.readUInt32BE(at);
    pieces.push(body.subarray(begin, at));
  }
  const [order, data, ...bytes] = pieces;
  const inPlace = (_, value) => (value && value._placeholder === true && bytes[value.num]) || value;
  return { type: EMITTED, ...JSON.parse(order), data: JSON.parse(data, bytes.length > 0 ? inPlace : undefined) };
}

/** Does it to the clients of this worker, whichever server they are of: the sender does not know of several. */
function hearEmitted({ act, nsp, options, id, rooms, close, data }) {
  for (const adapter of [...enrolled.values()]) {
    if (adapter.nsp.name !== nsp) continue;
    const { flags } = options;
    if (act === 'emit') {
      // Clients that are made up for what they missed ask for what came after a name.
      const isKept = adapter.packets !== undefined && flags.volatile === undefined;
      const packet = { type: 2, data: isKept ? [...data, id] : data };
      hearOrder(adapter, undefined, { type: EMIT, options, packet, offset: isKept ? id : undefined });
    } else if (act === 'join') {
      hearOrder(adapter, undefined, { type: JOIN, options, rooms });
    } else if (act === 'leave') {
      hearOrder(adapter, undefined, { type: LEAVE, options, rooms });
    } else if (act === 'disconnect') {
      hearOrder(adapter, undefined, { type: DISCONNECT, options, close });
    } else if (act === 'side') {
      emitAside(adapter, undefined, { values: data });
    }
  }
}

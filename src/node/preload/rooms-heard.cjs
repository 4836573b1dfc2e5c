// --- What other workers say of rooms ---------------------------------------------------------------------------------

/** A worker has gone: its answers are not awaited any more. */
roomsHeard.gone = (member) => [...asking.values()].forEach((request) => request.leave(member));

roomsHeard.message = (from, message) => {
  const { type, request } = message;
  if (type === PASS) {
    if (answerWith) answerWith(message.message).catch(complain);
    return;
  }
  if (type === FETCHED || type === COUNTED || type === ACKED || type === SIDE_ANSWER) {
    const asked = asking.get(request);
    if (asked) asked.answer(from, message);
    return;
  }
  if (type === EMITTED) {
    hearEmitted(message);
    return;
  }
  const adapter = message.options && enrolled.get(message.key);
  if (adapter) hearOrder(adapter, from, message);
  else if (request !== undefined && ABSENT[type]) sendBody(from, packBody(ABSENT[type](request)));
};

/** What a worker answers that does not have the namespace in question. */
const ABSENT = {
  [EMIT]: (request) => ({ type: COUNTED, request, count: 0 }),
  [FETCH]: (request) => ({ type: FETCHED, request, sockets: [] }),
  [SIDE]: (request) => ({ type: SIDE_ANSWER, request }),
};

/** Does to the clients of this worker what another has done to its own. */
function hearOrder(adapter, from, message) {
  const { type, request } = message;
  const { rooms, except, flags } = message.options;
  const options = { rooms: new Set(rooms), except: new Set(except), flags };
  const { base, plain } = madeOf.get(adapter);
  if (type === EMIT && request !== undefined) {
    broadcastHere(adapter, from, message, options);
  } else if (type === EMIT) {
    const { packet, offset } = message;
    if (adapter.packets && offset !== undefined) keep(adapter, packet, options, offset);
    plain.broadcast.call(adapter, packet, options);
  } else if (type === JOIN) {
    base.addSockets.call(adapter, options, message.rooms);
  } else if (type === LEAVE) {
    base.delSockets.call(adapter, options, message.rooms);
  } else if (type === DISCONNECT) {
    base.disconnectSockets.call(adapter, options, message.close);
  } else if (type === FETCH) {
    tellSockets(adapter, from, request, options).catch(complain);
  } else if (type === SIDE) {
    emitAside(adapter, from, message);
  }
}

function broadcastHere(adapter, from, { packet, request, timeout }, options) {
  const counted = (count) => sendBody(from, packBody({ type: COUNTED, request, count }));
  const acknowledged = (value) => {
    reply(adapter, from, { type: ACKED, request, value }, () => ({ type: ACKED, request }));
  };
  madeOf.get(adapter).base.broadcastWithAck.call(adapter, packet, options, counted, acknowledged);
  // As Socket.IO does for its own clients: answers are not awaited past the timeout.
  if (timeout > 0) later(() => adapter.nsp.sockets.forEach(({ acks }) => acks.delete(packet.id)), timeout);
}

async function tellSockets(adapter, from, request, options) {
  const found = await madeOf.get(adapter).base.fetchSockets.call(adapter, options);
  const sockets = found.map(({ id, rooms, data, handshake: { sessionStore: _, ...handshake } }) => {
    return { id, rooms: [...rooms], data, handshake };
  });
  const sendable = () => sockets.map((socket) => {
    return { ...socket, data: sendableOf(socket.data), handshake: sendableOf(socket.handshake) };
  });
  reply(adapter, from, { type: FETCHED, request, sockets }, () => ({ type: FETCHED, request, sockets: sendable() }));
}

/** What of an object can be sent. */
function sendableOf(object) {
  const isSendable = ([, value]) => attempt(() => (packBody({ value }), true), () => {}) === true;
  return Object.fromEntries(Object.entries(object || {}).filter(isSendable));
}

function emitAside(adapter, from, { values, request }) {
  const { nsp } = adapter;
  if (typeof nsp._onServerSideEmit !== 'function') return;
  if (request === undefined) {
    nsp._onServerSideEmit(values);
    return;
  }
  const answer = (value) => ({ type: SIDE_ANSWER, request, value });
  let answered = false;
  nsp._onServerSideEmit([...values, (value) => {
    if (answered) return;
    answered = true;
    reply(adapter, from, answer(value === undefined ? null : value), () => answer(null));
  }]);
}

/** Sends an answer; if that cannot be sent, what `instead` yields. */
function reply(adapter, to, message, instead) {
  const exactly = hasOwnParser(adapter);
  sendBody(to, attempt(() => packBody(message, exactly), cannotSend) || packBody(instead(), exactly));
}

// --- Recovery across workers ------------------------------------------------------------------------------------------

/**
 * A client comes back to this worker, and another one is asked what it has missed since `offset`. What comes between that
 * worker's answer and the client's joining its rooms here is in the packets that are kept here. Yields what adds it.
 */
function followPackets(adapter, offset) {
  if (!madeOf.has(adapter) || !Array.isArray(adapter.packets)) return undefined;
  const before = new Set(adapter.packets);
  return (session) => {
    if (!session) return session;
    const nameOfPacket = (data) => data[data.length - 1];
    const missed = session.missedPackets;
    const known = new Set(missed.map(nameOfPacket));
    const isFor = ({ rooms, except }) => (rooms.size === 0 || session.rooms.some((room) => rooms.has(room)))
      && !session.rooms.some((room) => except.has(room));
    const later = adapter.packets.filter((packet) => !before.has(packet) && !known.has(packet.id) && isFor(packet.opts));
    // The client may lose its connection again, and ask here from where it was.
    const kept = new Set(adapter.packets.map(({ id }) => id));
    const opts = { rooms: new Set([session.sid]), except: new Set() };
    const remember = (id, data) => adapter.packets.push({ id, opts, data, emittedAt: Date.now() });
    const isNew = !kept.has(offset);
    if (isNew) adapter.packets.push({ id: offset, opts: { rooms: new Set([session.pid]), except: new Set() }, data: [], emittedAt: Date.now() });
    for (const data of missed) if (isNew || !kept.has(nameOfPacket(data))) remember(nameOfPacket(data), data);
    return { ...session, missedPackets: [...missed, ...later.map(({ data }) => data)] };
  };
}

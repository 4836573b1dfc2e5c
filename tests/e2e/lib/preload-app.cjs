// A program with many Engine.IO servers at once: of every version, and with every way to make session ids.

const { execFileSync } = require('child_process');
const { EventEmitter } = require('events');
const http = require('http');
const { Worker } = require('worker_threads');

const express = require('express');

EventEmitter.defaultMaxListeners = 0; // so many engines have one server

let made = 0;
const next = (kind) => `${kind}_${made++}`;
const later = () => new Promise((resolve) => setImmediate(resolve));

/** How ids are made: each gives an engine of a class. */
const KINDS = {
  usual: (Server) => new Server(),
  instance: (Server) => Object.assign(new Server(), { generateId: () => next('instance') }),
  promise: (Server) => Object.assign(new Server(), { generateId: () => later().then(() => next('promise')) }),
  prototype: (Server) => Object.assign(new Server(), { kind: 'prototype' }),
  subclass: (Server) => {
    class Own extends Server {
      generateId() {
        return next('subclass');
      }
    }
    return new Own();
  },
  parent: (Server) => {
    class Own extends Server {
      generateId(request) {
        return `parent_${super.generateId(request)}`;
      }
    }
    return new Own();
  },
  constant: (Server) => {
    const constant = { value: () => next('constant'), configurable: true };
    return Object.defineProperty(new Server(), 'generateId', constant);
  },
  number: (Server) => Object.assign(new Server(), { generateId: () => 1000 + made++ }),
  // Changed when the first session begins, which in Engine.IO 3 is before the handshake has ended.
  changed: (Server) => {
    const engine = new Server();
    engine.once('connection', () => {
      const { generateId } = engine;
      engine.generateId = (request) => `changed_${generateId.call(engine, request)}`;
    });
    return engine;
  },
  // It may have been tagged already, by whichever worker.
  given: (Server) => Object.assign(new Server(), { generateId: (request) => request.headers['x-id'] }),
  failing: (Server) => Object.assign(new Server(), { generateId: () => Promise.reject(new Error('no id')) }),
};

/** Engine.IO 3 knows nothing of these. */
const WITH_PROMISES = ['promise', 'failing'];

/** What of haft's a process sees. */
const SEEN = `({
  key: process.env.HAFT_TAG_KEY,
  options: process.env.NODE_OPTIONS,
  preloads: Object.keys(require.cache).filter((file) => file.endsWith('preload.cjs')).length,
})`;

const inThread = () =>
  new Promise((resolve, reject) => {
    const thread = new Worker(`require('worker_threads').parentPort.postMessage(${SEEN})`, { eval: true });
    thread.once('message', resolve).once('error', reject);
  });

/** What an engine has of its own, and its own way to make ids. */
function ownThings(engine) {
  const { value } = Object.getOwnPropertyDescriptor(engine, 'generateId') || {};
  return `${Object.getOwnPropertyNames(engine)} ${value}`;
}

/** `engines`: the class of each version; `SocketServer`: Socket.IO's. Yields the HTTP server. */
exports.run = (engines, SocketServer) => {
  const app = express();
  const server = http.createServer(app);
  app.get('/express', (request, response) => response.json({ address: request.ip }));
  app.get('/http', ({ socket }, response) => {
    response.json({ address: socket.remoteAddress, family: socket.remoteFamily, port: socket.remotePort });
  });
  const own = [];
  for (const [version, Server] of Object.entries(engines)) {
    for (const kind of Object.keys(KINDS).filter((kind) => version > 3 || !WITH_PROMISES.includes(kind))) {
      const engine = KINDS[kind](Server);
      engine.attach(server, { path: `/${version}/${kind}` });
      engine.on('connection', (session) => session.on('message', (message) => session.send(message)));
      if (kind !== 'changed') own.push([engine, ownThings(engine)]);
    }
    // After engines were made.
    const { generateId } = Server.prototype;
    Server.prototype.generateId = function (...args) {
      return this.kind === 'prototype' ? next('prototype') : generateId.apply(this, args);
    };
  }
  const io = new SocketServer(server);
  io.on('connection', (socket) => {
    socket.emit('hello', { address: socket.handshake.address, sid: socket.conn.id });
    socket.on('echo', (value, answer) => answer(value));
  });

  const commands = {
    seen: async () => ({ own: eval(SEEN), thread: await inThread() }),
    child: () => JSON.parse(execFileSync(process.execPath, ['-p', `JSON.stringify(${SEEN})`], { encoding: 'utf8' })),
    /** Whether every engine has of its own what the program has given it, and nothing else. */
    untouched: () => own.every(([engine, things]) => ownThings(engine) === things),
  };
  process.on('message', async (message, socket) => {
    if (socket) return server.emit('connection', socket);
    if (message.command) process.send({ command: message.command, answer: await commands[message.command]() });
  });
  return server.listen(3000);
};

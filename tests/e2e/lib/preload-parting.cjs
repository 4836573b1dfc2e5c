// A program with Engine.IO 3 to 6, which can be made to handle signals, and what it starts.

const { execFile, fork } = require('child_process');
const http = require('http');
const { Worker } = require('worker_threads');

// Goodbyes are said in any order; here in that in which the sessions came.
Math.random = () => 1 - Number.EPSILON;

const engines = [];
const server = http.createServer((request, response) => response.end('here'));
for (const version of [3, 4, 5, 6]) {
  const { Server } = require(`engine.io-${version}`);
  // No ping comes between what the tests wait for.
  const engine = new Server({ pingInterval: 600000, pingTimeout: 600000 });
  engines.push(engine);
  engine.attach(server, { path: `/${version}` });
  engine.on('connection', (session) => session.on('message', (message) => session.send(message)));
}

const handlers = { SIGTERM: () => {}, SIGINT: () => {} };
/** What of haft's a process sees: listeners that it did not make, and functions that are not Node's. */
const SEEN = `JSON.stringify([
  ...['newListener', 'disconnect', 'internalMessage', 'error'].map((name) => process.listenerCount(name)),
  Object.getOwnPropertyDescriptor(require('http').Server.prototype, 'emit') === undefined,
])`;

const commands = {
  /** How many sessions wait at a poll. */
  polls: () => {
    const transports = engines.flatMap(({ clients }) => Object.values(clients).map(({ transport }) => transport));
    return transports.filter(({ name, writable }) => name === 'polling' && writable).length;
  },
  on: (name) => void process.on(name, handlers[name]),
  once: (name) => void process.once(name, handlers[name]),
  off: (name) => void process.off(name, handlers[name]),
  'all off': (name) => void process.removeAllListeners(name),
  emit: (name) => void process.emit(name),
  /** What Node does where something is sent to a primary that is no more. */
  break: () => void process.emit('error', Object.assign(new Error('write EPIPE'), { code: 'EPIPE' })),
  tool: () => new Promise((done) => execFile(process.execPath, ['-p', SEEN], (_, text) => done(text.trim()))),
  fork: () =>
    new Promise((done) => {
      const child = fork(__filename, ['child']);
      child.once('message', (seen) => (child.disconnect(), done(seen)));
    }),
  thread: () =>
    new Promise((done) => {
      new Worker(`require('worker_threads').parentPort.postMessage(${SEEN})`, { eval: true }).once('message', done);
    }),
};

if (process.argv[2] === 'child') {
  process.send(eval(SEEN));
} else {
  process.on('message', async ({ command }) => {
    const [name, argument] = command.split(': ');
    process.send({ command, answer: (await commands[name](argument)) || null });
  });
  server.listen(3000);
}

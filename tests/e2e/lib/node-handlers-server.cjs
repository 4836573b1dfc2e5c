// A program with a SIGTERM handler of its own, or one of a package. /slow is answered a while later, /held when the file
// `gate` is there. It notes when its handler begins and has done its work, and how it exits.

const { appendFileSync, existsSync } = require('fs');
const http = require('http');

const [, , kind, note, gate] = process.argv;
const tell = (what) => appendFileSync(note, `${JSON.stringify({ pid: process.pid, ...what })}\n`);
const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** What a program does before it ends: it takes a while, and longer than haft looks for those that do not end. */
async function work() {
  await sleep(2500);
  tell({ worked: true });
}

async function answer(path) {
  if (path === '/slow') await sleep(1000);
  while (path === '/held' && !existsSync(gate)) await sleep(20);
  return String(process.pid);
}

function plain() {
  const server = http.createServer(async ({ url }, response) => response.end(await answer(url)));
  server.on('close', () => tell({ closed: true }));
  return server;
}

const closed = (server) => new Promise((done, failed) => server.close((error) => (error ? failed(error) : done())));

const kinds = {
  /** Its work, and nothing said of its server. */
  work() {
    process.on('SIGTERM', async () => {
      tell({ began: true });
      await work();
      process.exit(0);
    });
    plain().listen(3000);
  },
  /** A second SIGTERM would end it in the middle. */
  once() {
    const server = plain().listen(3000);
    process.once('SIGTERM', async () => {
      tell({ began: true, listening: server.listening, port: server.address().port });
      await closed(server);
      tell({ listening: server.listening, address: server.address() });
      await closed(server).then(() => tell({ again: 'closed' }), ({ code }) => tell({ again: code }));
      await work();
    });
  },
  terminus() {
    const server = plain();
    const onSignal = () => (tell({ began: true }), work());
    require('@godaddy/terminus').createTerminus(server, { signal: 'SIGTERM', timeout: 20_000, onSignal });
    server.listen(3000);
  },
  'http-terminator'() {
    const server = plain().listen(3000);
    const terminator = require('http-terminator').createHttpTerminator({ server, gracefulTerminationTimeout: 20_000 });
    process.on('SIGTERM', async () => {
      tell({ began: true });
      await terminator.terminate();
      await work();
      process.exit(0);
    });
  },
  fastify() {
    const app = require('fastify')();
    app.get('/*', ({ url }) => answer(url));
    app.addHook('onClose', work);
    process.on('SIGTERM', async () => {
      tell({ began: true });
      await app.close();
      process.exit(0);
    });
    app.listen({ port: 3000, host: '127.0.0.1' });
  },
  /** As several packages do: it closes only what listens. Its UDP socket is shared by all workers. */
  careful() {
    const server = plain().listen(3000);
    const socket = require('dgram').createSocket('udp4').bind(0, '127.0.0.1');
    process.on('SIGTERM', () => {
      tell({ began: true });
      socket.close();
      if (server.listening) server.close(() => work().then(() => process.exit(0)));
    });
  },
};

process.on('exit', (code) => tell({ code }));
process.on('uncaughtExceptionMonitor', (error) => tell({ error: error.stack }));
kinds[kind]();

// What tests/bench/rooms.mjs measures: `node node-rooms-bench.cjs [ADAPTER [PORT]]`. A client can make it send to all
// clients.

const { createServer } = require('node:http');
const { Server } = require('socket.io');

const [, , adapter, port] = process.argv;
const TEXT = 'x'.repeat(100);

async function main() {
  const server = createServer();
  const io = new Server(server, { perMessageDeflate: false });
  if (port) {
    const { createClient } = require('redis');
    const [pub, sub] = [0, 1].map(() => createClient({ url: `redis://127.0.0.1:${port}` }));
    await Promise.all([pub.connect(), sub.connect()]);
    io.adapter(require(adapter).createAdapter(pub, sub));
  } else if (adapter) {
    io.adapter(require(adapter).createAdapter());
  }
  /** Does something `rate` times a second, `count` times. */
  const often = (rate, count, work) => {
    const began = performance.now();
    let done = 0;
    const timer = setInterval(() => {
      const due = Math.min(count, Math.floor(((performance.now() - began) / 1000) * rate));
      for (; done < due; done++) work(done);
      if (done >= count) clearInterval(timer);
    }, 5);
  };
  io.on('connection', (socket) => {
    socket.emit('pid', process.pid);
    socket.on('all', (rate, count) => often(rate, count, (n) => io.emit('all', { n, text: TEXT })));
    socket.on('own', (rate, count) => often(rate, count, (n) => io.local.emit('all', { n, text: TEXT })));
    socket.on('exchange', (rate, count) => often(rate, count, (n) => io.to('nobody').emit('all', n)));
  });
  server.listen(0, '127.0.0.1');
}

main();

// npm's own Socket.IO server with the application of haft's built-in worker: the reference that the client side of
// these tests is tried on. `node npm-server.mjs single` is one process; `cluster N` is Node's cluster, which spreads
// connections round robin. Prints `listening on ADDR` and, for each request, `from ADDR N`: the Nth of its connection.

import cluster from 'node:cluster';
import http from 'node:http';

import { Server } from 'socket.io';

const [mode, count] = process.argv.slice(2);

if (mode === 'cluster' && cluster.isPrimary) {
  cluster.schedulingPolicy = cluster.SCHED_RR;
  for (let slot = 0; slot < Number(count); slot++) cluster.fork({ SLOT: slot });
  let waiting = Number(count);
  cluster.on('listening', (_worker, { address, port }) => {
    if (--waiting === 0) console.log(`listening on ${address}:${port}`);
  });
} else {
  const worker = { slot: Number(process.env.SLOT ?? 0), pid: process.pid };
  const server = http.createServer((request, response) => {
    if (request.url === '/haft/page.json') response.end(JSON.stringify({ worker }));
  });
  const io = new Server(server);
  io.on('connection', (socket) => {
    socket.emit('hello', { ...worker, client: `${socket.conn.remoteAddress}:${socket.request.socket.remotePort}` });
    socket.on('join', ({ room }, answer) => (socket.join(room), answer({ ok: true, room })));
    socket.on('leave', ({ room }, answer) => (socket.leave(room), answer({ ok: true, room })));
    socket.on('message', ({ room, text }, answer) => {
      socket.to(room).emit('message', { room, text });
      answer({ ok: true, room, members: io.sockets.adapter.rooms.get(room).size });
    });
    socket.on('echo', (...args) => {
      args.pop()(...args);
      socket.emit('echo', ...args);
    });
  });
  server.prependListener('request', tell);
  server.prependListener('upgrade', tell);
  server.listen(0, '127.0.0.1', () => {
    const { address, port } = server.address();
    if (mode === 'single') console.log(`listening on ${address}:${port}`);
  });
}

function tell({ socket }) {
  socket.requests = (socket.requests ?? 0) + 1;
  console.log(`from ${socket.remoteAddress} ${socket.requests}`);
}

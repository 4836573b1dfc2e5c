// npm's own Socket.IO server with the application of haft's built-in worker: the reference that the client side of
// these tests is tried on. `node npm-server.mjs single` is one process; `cluster N` is Node's cluster, which spreads
// connections round robin. Prints `listening on ADDR` and, for each request, `from ADDR N`: the Nth of its connection.

import cluster from 'node:cluster';
import http from 'node:http';

import { app, page } from './node-app.cjs';

const [mode, count] = process.argv.slice(2);

if (mode === 'cluster' && cluster.isPrimary) {
  cluster.schedulingPolicy = cluster.SCHED_RR;
  for (let slot = 0; slot < Number(count); slot++) cluster.fork({ HAFT_SLOT: slot });
  let waiting = Number(count);
  cluster.on('listening', (_worker, { address, port }) => {
    if (--waiting === 0) console.log(`listening on ${address}:${port}`);
  });
} else {
  const server = http.createServer(page());
  app(server);
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

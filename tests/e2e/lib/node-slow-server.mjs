// A program of the classic style that is slow to start: it awaits something before it waits for connections, and it listens
// only after that, as such programs do. `node node-slow-server.mjs MILLISECONDS`.

import http from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';

import { page } from './node-app.cjs';

const server = http.createServer(page('slow'));
await pause(Number(process.argv[2]));
process.on('message', (message, connection) => {
  if (connection && message === 'sticky-session:connection') server.emit('connection', connection);
});
server.listen(0, 'localhost');

// A program of the classic style that takes connections only after a while, and says when: `process.send('ready')`.

import http from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';

import { app, page } from './node-app.cjs';

const server = http.createServer(page('late'));
app(server);
await pause(300);
process.on('message', (message, connection) => {
  if (connection && message === 'sticky-session:connection') server.emit('connection', connection);
});
console.log(`process ${process.pid} takes connections`);
process.send('ready');

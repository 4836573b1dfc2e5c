// A small program for preload-register.mjs: Node cannot load everything that way.

import { createServer } from 'node:http';

import { Server } from 'socket.io';

const server = createServer();
new Server(server).on('connection', (socket) => {
  socket.emit('hello', { sid: socket.conn.id });
  socket.on('echo', (value, answer) => answer(value));
});
server.listen(3000);

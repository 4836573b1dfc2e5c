// A Socket.IO program for one process: `node node-rooms-server.cjs [OPTIONS]`, with the server's options as JSON. It knows
// nothing of other workers. A client can have it run any line of Socket.IO's, and is answered `{ value }` or `{ error }`.

const { createServer } = require('node:http');
const { Server } = require(process.env.SOCKET_IO || 'socket.io');

require('./node-rooms-program.cjs').serve(createServer, Server);

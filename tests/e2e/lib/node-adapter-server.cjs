// Socket.IO with @socket.io/cluster-adapter: `node node-adapter-server.cjs PACKAGE`, where PACKAGE is the adapter's name.

const { createServer } = require('node:http');
const { Server } = require('socket.io');

const { createAdapter } = require(process.argv[2]);

const server = createServer();
require('./node-adapter-program.cjs').serveOn(new Server(server, { adapter: createAdapter() }));
server.listen(0, '127.0.0.1');

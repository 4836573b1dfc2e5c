// Socket.IO 2 or 3: `node node-old-server.cjs PACKAGE`.

const { createServer } = require('node:http');

const server = createServer();
const io = require(process.argv[2])(server);
io.on('connection', (socket) => socket.emit('hello', { pid: process.pid }));
server.listen(0, '127.0.0.1');

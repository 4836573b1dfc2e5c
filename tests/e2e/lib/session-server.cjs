// The application of app.mjs as a CommonJS program: `node session-server.cjs`.

const { createServer } = require('http');
const { Server } = require('socket.io');

const { page, talk } = require('./node-app.cjs');

const server = createServer(page('CommonJS'));
talk(new Server(server, { maxHttpBufferSize: 4_000_000 }));
server.listen(3000);

// The application of app.mjs as a program of ECMAScript modules: `node session-server.mjs`.

import { createServer } from 'node:http';

import { Server } from 'socket.io';

import { page, talk } from './node-app.cjs';

const server = createServer(page('ECMAScript'));
talk(new Server(server, { maxHttpBufferSize: 4_000_000 }));
server.listen(3000);

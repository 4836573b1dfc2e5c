// node-adapter-server.cjs as an ECMAScript module, which sets its adapter after it has made the server.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { Server } from 'socket.io';

const { createAdapter } = await import(process.argv[2]);
const server = createServer();
const io = new Server(server);
io.adapter(createAdapter());

createRequire(import.meta.url)('./node-adapter-program.cjs').serveOn(io);
server.listen(0, '127.0.0.1');

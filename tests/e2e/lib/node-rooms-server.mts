// node-rooms-server.cjs in TypeScript, which runs through a loader's hooks (tsx).

import { createServer, type RequestListener, type Server as HttpServer } from 'node:http';

import { Server } from 'socket.io';

import program from './node-rooms-program.cjs';

const create: (listener?: RequestListener) => HttpServer = createServer;
program.serve(create, Server);

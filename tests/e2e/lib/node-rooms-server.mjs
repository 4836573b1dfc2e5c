// node-rooms-server.cjs as an ECMAScript module.

import { createServer } from 'node:http';

import { Server } from 'socket.io';

import program from './node-rooms-program.cjs';

program.serve(createServer, Server);

// An ordinary server that answers with the checksum of what it was sent: by a POST to any path, or by the event "sum".

import { createHash } from 'node:crypto';
import http from 'node:http';

import { app } from './node-app.cjs';

const sum = (data) => createHash('sha256').update(data).digest('hex');
const worker = { slot: Number(process.env.HAFT_SLOT), pid: process.pid };

const server = http.createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray());
  response.end(JSON.stringify({ worker, length: body.length, sum: sum(body) }));
});
const io = app(server, { maxHttpBufferSize: 4 << 20 });
io.on('connection', (socket) => socket.on('sum', (text) => socket.emit('sum', sum(text))));
server.listen(3000);

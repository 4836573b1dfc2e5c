// Says how its connections came: over Node's channel (as `newconn`) or not.

const fs = require('fs');
const http = require('http');

/** The first worker that gets here dies of its fifth connection. */
const dies = process.env.DIES && isFirst(process.env.DIES);
let byChannel = 0;
let all = 0;
process.on('internalMessage', (message) => (byChannel += message.act === 'newconn' ? 1 : 0));

const server = http.createServer((request, response) => {
  const { remoteAddress, remotePort } = request.socket;
  const say = () => response.end(JSON.stringify({ pid: process.pid, byChannel, all, remoteAddress, remotePort }));
  if (request.url === '/again') server.close(() => server.listen(process.env.PORT || 0));
  if (request.url === '/slow') setTimeout(say, 300);
  else if (request.url === '/busy') busy(request.socket, say);
  else say();
});
server.on('connection', (socket) => {
  all++;
  if (all === 5 && dies) throw new Error('a program that dies of a connection');
  socket.on('error', () => {});
});
if (process.env.MOST) server.maxConnections = Number(process.env.MOST);
server.listen(process.env.PORT || 0);

/** Does nothing else until there is the file, as a program that computes. */
function busy(socket, then) {
  process.stdout.write('busy\n');
  while (!fs.existsSync(process.env.GO)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
  then();
}

function isFirst(mark) {
  try {
    fs.mkdirSync(mark);
    return true;
  } catch {
    return false;
  }
}

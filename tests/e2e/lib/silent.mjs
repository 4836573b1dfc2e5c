// Clients that connect and say nothing: `node silent.mjs HOST PORT COUNT`. Tells `open` when all are connected, on SIGUSR2
// asks something on some of them and tells `answered` when all those have an answer, and tells `closed` when the
// last was closed under it.

import net from 'node:net';

const [host, port, count] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const AT_ONCE = 250;
const ASKING = 20;

const sockets = [];
let [opening, open, closed, answered] = [0, 0, 0, 0];

function next() {
  if (opening === count) return;
  opening++;
  const socket = net.connect({ host, port });
  sockets.push(socket);
  socket.once('connect', () => {
    if (++open === count) console.log('open');
    next();
  });
  socket.on('error', ({ code }) => code !== 'ECONNRESET' && console.log(`error ${code}`));
  socket.once('data', () => ++answered === ASKING && console.log('answered'));
  socket.once('close', () => ++closed === count && console.log('closed'));
}

for (let index = 0; index < AT_ONCE; index++) next();

process.on('SIGUSR2', () => {
  for (const socket of sockets.slice(0, ASKING)) socket.write('GET /haft/page.json HTTP/1.1\r\nHost: h\r\n\r\n');
});
// Without a connection it lives on.
setInterval(() => {}, 60_000);

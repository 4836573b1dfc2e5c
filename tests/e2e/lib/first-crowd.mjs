// Clients that connect and say nothing: `node first-crowd.mjs HOST PORT COUNT`, from several addresses, since one has
// not ports enough. Prints `connected N` when all are, and `ended N` when all of them were ended by the server.

import net from 'node:net';

const [host, port, count] = process.argv.slice(2);
const ADDRESSES = 20;
/** So many at once: a queue of the kernel's takes them. */
const AT_ONCE = 200;

const wanted = Number(count);
let next = 0;
let connected = 0;
let ended = 0;

function open() {
  const socket = net.connect({ host, port, localAddress: `127.0.9.${1 + (next++ % ADDRESSES)}` });
  socket.on('connect', () => {
    if (++connected === wanted) console.log(`connected ${connected}`);
    if (next < wanted) open();
  });
  // Only what was connected can be ended; a refused one shows by the first line that never comes.
  socket.on('error', (error) => error.syscall === 'connect' && console.log(`failed ${error.code}`));
  socket.on('close', () => {
    if (++ended === wanted) console.log(`ended ${ended}`);
  });
  socket.resume();
}

while (next < Math.min(wanted, AT_ONCE)) open();

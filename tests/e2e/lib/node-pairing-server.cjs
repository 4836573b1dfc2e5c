// Tells each client which port it came from, and meanwhile sends messages of 10 B to 130 kB to the other workers, as
// @socket.io/cluster-adapter does: `node node-pairing-server.cjs SEED`. Tells `corrupt` when one did not arrive whole,
// and `messages N` on SIGUSR2.

const net = require('node:net');

const SMALLEST = 10;
const LARGEST = 130_000;

const uid = `${process.pid}`;
let state = (Number(process.argv[2]) ^ process.pid) >>> 0;
let received = 0;

/** A number in [0, 1) that the seed decides (a linear congruence, as good as these sizes need). */
function chance() {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}

process.on('message', ({ source, data }) => {
  if (source !== '_sio_adapter' || !data) return;
  received++;
  if (data.text.length !== data.length || data.text !== data.letter.repeat(data.length)) console.log('corrupt');
});

const server = net.createServer((socket) => {
  socket.on('error', () => {});
  socket.end(`${socket.remoteAddress}:${socket.remotePort}`);
  // As many small ones as large ones, by order of magnitude.
  const length = Math.floor(SMALLEST * (LARGEST / SMALLEST) ** chance());
  const letter = String.fromCharCode(97 + Math.floor(chance() * 26));
  process.send({ source: '_sio_adapter', type: 3, nsp: '/', uid, data: { length, letter, text: letter.repeat(length) } });
});
server.listen(0, '127.0.0.1');
process.on('SIGUSR2', () => console.log(`messages ${received}`));

// Keeps a ledger of the connections it has been given: `node node-ledger-server.cjs FOLDER BUSY STYLE`. Its file in
// FOLDER is named by its pid and has a line `+ ADDRESS:PORT` for each connection, written before anything else is done
// with it, and a line `!` before each confirmation that this process sends. It is busy for BUSY ms with each request.

const { appendFileSync } = require('node:fs');
const http = require('node:http');
const { join } = require('node:path');

const [folder, busy, style] = process.argv.slice(2);
const file = join(folder, `${process.pid}`);
appendFileSync(file, '');

// `accepted` confirms a connection in the cluster's own style; where it comes with a message, its acknowledgement does.
const { _send } = process;
process._send = (message, ...rest) => {
  if (style === 'classic' ? message.cmd === 'NODE_HANDLE_ACK' : message.accepted === true) appendFileSync(file, '!\n');
  return _send.call(process, message, ...rest);
};

const server = http.createServer((request, response) => {
  const end = performance.now() + Number(busy);
  while (performance.now() < end);
  response.end(`${process.pid}`);
});
server.on('connection', ({ remoteAddress, remotePort }) => appendFileSync(file, `+ ${remoteAddress}:${remotePort}\n`));

if (style === 'classic') {
  process.on('message', (message, connection) => message === 'sticky-session:connection' && server.emit('connection', connection));
  // As programs of this style do, last.
  server.listen(0, 'localhost');
} else {
  server.listen(0, '127.0.0.1');
}

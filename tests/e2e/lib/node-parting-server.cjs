// Socket.IO, and plain WebSockets below /plain, which echo. With `noisy` the program writes and sends all the time, as
// loggers and adapters do, to all that are there. It notes how it ends, and each end of a session, in a file. With
// `message=MESSAGE` it takes its connections by that message, with `any` it listens on any port.

const { appendFileSync } = require('fs');
const http = require('http');
const { Server } = require('socket.io');
const { WebSocketServer } = require('ws');

const [, , note, ...words] = process.argv;
const tell = (what) => appendFileSync(note, `${JSON.stringify({ pid: process.pid, at: Date.now(), ...what })}\n`);

const server = http.createServer((request, response) => {
  const answer = () => response.end(JSON.stringify({ pid: process.pid, slot: process.env.HAFT_SLOT }));
  if (request.url === '/slow') setTimeout(answer, 1000);
  else answer();
});
const io = new Server(server);
io.on('connection', (socket) => {
  socket.emit('hello', { slot: Number(process.env.HAFT_SLOT), pid: process.pid });
  socket.on('echo', (...args) => args.pop()(...args));
  socket.on('disconnect', (reason) => tell({ ended: 'session', reason }));
});
const plain = new WebSocketServer({ noServer: true });
plain.on('connection', (socket) => {
  socket.on('message', (data) => socket.send(`${data}`));
  socket.on('close', (code) => tell({ ended: 'plain', code }));
});
server.on('upgrade', (request, socket, head) => {
  if (request.url !== '/plain') return;
  plain.handleUpgrade(request, socket, head, (webSocket) => plain.emit('connection', webSocket));
});

const byMessage = words.find((word) => word.startsWith('message='));
if (byMessage) {
  process.on('message', (message, socket) => {
    if (message !== byMessage.slice(8) || !socket) return;
    server.emit('connection', socket);
    socket.resume();
  });
  http.createServer().listen(0, 'localhost', () => process.send('ready'));
} else {
  server.listen(words.includes('any') ? 0 : 3000);
}

if (words.includes('noisy')) {
  setInterval(() => {
    process.stdout.write('out\n');
    process.stderr.write('err\n');
    console.log('log');
    process.send({ topic: 'for the primary' });
  }, 2);
}
process.on('exit', (code) => tell({ exit: code }));
process.on('uncaughtExceptionMonitor', (error) => tell({ error: error.stack }));

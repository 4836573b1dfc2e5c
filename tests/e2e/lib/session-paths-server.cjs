// Several Socket.IO servers in one program, each at a path of its own: two of them at one HTTP server, one at another, and
// an Engine.IO that the program gives its requests itself.

const { createServer } = require('http');
const { Server: Engine } = require('engine.io');
const { Server } = require('socket.io');

const { talk } = require('./node-app.cjs');

const [, , other] = process.argv;
const engine = new Engine();
const main = createServer((request, response) => {
  if (request.url.startsWith('/engine/')) engine.handleRequest(request, response);
  else response.end('page');
});
engine.on('connection', (session) => session.on('message', (data) => session.send(data)));
talk(new Server(main, { path: '/a/' }));
talk(new Server(main, { path: '/deep/b' }));
main.listen(3000);
const second = createServer();
talk(new Server(second, { path: '/c/' }));
second.listen(Number(other), '127.0.0.1');

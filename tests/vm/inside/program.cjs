// A Socket.IO program as users have it: `say` is answered with its own words and the process's id.
const { createServer } = require('http');
const { Server } = require('socket.io');

const server = createServer((request, response) => {
  if (request.url === '/eat') return eat();
  response.end(String(process.pid));
});
new Server(server).on('connection', (socket) => socket.on('say', (text) => socket.emit('said', text, process.pid)));
server.listen(4000, () => console.log('the program listens'));

function eat() {
  const eaten = [];
  setInterval(() => eaten.push(Buffer.alloc(16 << 20, 1)), 1);
}

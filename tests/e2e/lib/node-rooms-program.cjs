// What node-rooms-server.cjs and the like do: a client can have them run any line of Socket.IO's.

const AsyncFunction = (async () => {}).constructor;

/** The program of a server of its own, and of a second one in the same process. */
exports.serve = (createServer, Server) => {
  const server = createServer();
  const io = new Server(server, JSON.parse(process.argv[2] || '{}'));
  exports.serveOn(server, io, new Server(server, { path: '/second/' }));
  server.listen(0, '127.0.0.1');
};

exports.serveOn = (server, io, ...others) => {
  for (const chat of [io, io.of('/other'), io.of(/^\/dynamic-\d+$/), ...others]) {
    chat.on('connection', (socket) => {
      socket.data.name = socket.handshake.auth.name;
      socket.emit('hello', { pid: process.pid, sid: socket.id, recovered: socket.recovered });
      socket.on('run', async (code, args, done) => {
        try {
          const value = await new AsyncFunction('io', 'nsp', 'socket', 'args', code)(io, socket.nsp, socket, args);
          done({ value });
        } catch ({ message, responses }) {
          done({ error: message, responses });
        }
      });
    });
  }
  for (const nsp of [io, io.of('/other')]) {
    nsp.on('ask', (...args) => args.pop()({ pid: process.pid, payload: args[0] }));
    nsp.on('tell', (payload) => nsp.local.emit('told', { pid: process.pid, payload }));
    nsp.on('silent', () => {});
    nsp.on('throws', () => {
      throw new Error('of the program');
    });
  }
};

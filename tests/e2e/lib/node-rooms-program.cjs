// What node-rooms-server.cjs and node-rooms-server.mjs do.

const AsyncFunction = (async () => {}).constructor;

exports.serve = (createServer, Server) => {
  const options = JSON.parse(process.argv[2] || '{}');
  const server = createServer();
  const io = new Server(server, options);
  const chats = [io, io.of('/other'), io.of(/^\/dynamic-\d+$/)];
  // Another server of the same process: its clients are others.
  const second = new Server(server, { path: '/second/' });

  for (const chat of [...chats, second]) {
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
    nsp.on('throws', () => { throw new Error('of the program'); });
  }
  server.listen(0, '127.0.0.1');
};

// The application of haft's built-in worker, on npm's Socket.IO: what clients of app.mjs talk with. CommonJS, so that
// programs of both kinds can use it.

const { Server } = require('socket.io');

const worker = { slot: Number(process.env.HAFT_SLOT ?? 0), pid: process.pid };

/** Answers a request outside Socket.IO with the worker that serves it, and through which server. */
exports.page = (name) => (request, response) => {
  if (request.url === '/haft/page.json') response.end(JSON.stringify({ worker, name }));
};

/** Adds Socket.IO to an HTTP server. */
exports.app = (server, options) => exports.talk(new Server(server, options));

/** The application on a Socket.IO server, however that was made. */
exports.talk = (io) => {
  io.on('connection', (socket) => {
    const { remoteAddress, remotePort } = socket.request.socket;
    // A dual-stack server sees IPv4 clients under their mapped address.
    const address = remoteAddress?.replace('::ffff:', '');
    socket.emit('hello', { ...worker, client: `${address}:${remotePort}`, handshake: socket.handshake.address });
    socket.on('join', ({ room }, answer) => (socket.join(room), answer({ ok: true, room })));
    socket.on('leave', ({ room }, answer) => (socket.leave(room), answer({ ok: true, room })));
    socket.on('message', ({ room, text }, answer) => {
      socket.to(room).emit('message', { room, text });
      answer({ ok: true, room, members: io.sockets.adapter.rooms.get(room).size });
    });
    socket.on('echo', (...args) => {
      args.pop()(...args);
      socket.emit('echo', ...args);
    });
  });
  return io;
};

// A chat whose clients are recovered: `node recovery-server.cjs`. Each client gets the room that it asks for.

const { createServer } = require('node:http');

const { Server } = require('socket.io');

const server = createServer();
const io = new Server(server, { connectionStateRecovery: { maxDisconnectionDuration: 60_000, skipMiddlewares: true } });
io.on('connection', (socket) => {
  const here = () => ({ pid: process.pid, slot: Number(process.env.HAFT_SLOT) });
  socket.on('begin', (room, answer) => {
    socket.join(room);
    socket.data = { room, began: new Date(0), bytes: Buffer.from(room) };
    socket.emit('first', room);
    answer(here());
  });
  socket.on('where', (answer) => {
    const { room, began, bytes } = socket.data;
    answer({ ...here(), recovered: socket.recovered, room, began: began instanceof Date, bytes: String(bytes) });
  });
  // To a room whose members may be away.
  socket.on('say', (room, text, answer) => answer(io.to(room).emit('said', text, Buffer.from(text))));
});
server.listen(3000, '127.0.0.1');

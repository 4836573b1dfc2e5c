// A worker as @socket.io/sticky and @socket.io/cluster-adapter want it. It never calls listen().

const { createServer } = require("node:http");
const { createAdapter } = require("@socket.io/cluster-adapter");
const { setupWorker } = require("@socket.io/sticky");
const { Server } = require("socket.io");

const server = createServer((request, response) => {
  response.end(`worker ${process.pid} serves ${request.socket.remoteAddress}\n`);
});
const io = new Server(server, { adapter: createAdapter() });
setupWorker(io);

io.on("connection", (socket) => {
  socket.emit("hello", { pid: process.pid });
  socket.on("message", async (text, done) => {
    io.emit("message", text);
    const everyone = await io.fetchSockets();
    done?.({ heard: everyone.length });
  });
});

// An ordinary Socket.IO server. It knows nothing of clusters, of stickiness or of haft.

const { createServer } = require("node:http");
const express = require("express");
const { Server } = require("socket.io");

const app = express();
const server = createServer(app);
const io = new Server(server);

app.get("/", (request, response) => {
  response.send(`process ${process.pid} serves ${request.ip}\n`);
});

io.on("connection", (socket) => {
  socket.emit("hello", { pid: process.pid });
  socket.on("message", (text, done) => {
    io.emit("message", text);
    done?.({ heard: io.engine.clientsCount });
  });
});

server.listen(process.env.PORT ?? 3000, () => {
  console.log(`process ${process.pid} listens on port ${server.address().port}`);
});

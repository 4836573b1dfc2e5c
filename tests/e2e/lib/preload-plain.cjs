// A program without Engine.IO.

const http = require('http');

http.createServer((request, response) => response.end('plain')).listen(3000);

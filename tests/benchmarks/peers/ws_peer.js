// Echo and chat with ws, the WebSocket library of Node: npm install ws
const { WebSocketServer, WebSocket } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 }, () => {
  console.log(`startup complete, http://127.0.0.1:${server.address().port}`);
});
const members = new Set();

server.on("connection", (socket, request) => {
  if (request.url === "/ws/echo") {
    socket.on("message", (message) => socket.send(`Echo: ${message}`));
    return;
  }
  members.add(socket);
  socket.on("close", () => members.delete(socket));
  socket.on("message", (message) => {
    for (const member of members) {
      if (member.readyState === WebSocket.OPEN) member.send(`Client says: ${message}`);
    }
  });
});

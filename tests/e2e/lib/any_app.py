"""The application of haft's built-in worker, on python-socketio: what clients of app.mjs talk with. An ASGI application that
knows nothing of haft, for whatever server there is."""

import json
import os
import sys

import socketio

sio = socketio.AsyncServer(async_mode="asgi", always_connect=True)
# gunicorn starts a process of its own to serve; the one that haft knows is its parent.
worker = {"slot": int(os.environ["HAFT_SLOT"]), "pid": os.getppid() if "gunicorn" in sys.modules else os.getpid()}


async def page(scope, receive, send):
    """Answers a request outside Socket.IO with the worker that serves it."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps({"worker": worker}).encode()})


app = socketio.ASGIApp(sio, other_asgi_app=page)


@sio.event
async def connect(sid, environ):
    host, port = environ["asgi.scope"]["client"]
    await sio.emit("hello", {**worker, "client": f"{host}:{port}"}, to=sid)


@sio.event
async def echo(sid, *args):
    await sio.emit("echo", args, to=sid)
    return args


@sio.event
async def join(sid, data):
    sio.enter_room(sid, data["room"])
    return {"ok": True, "room": data["room"]}


@sio.event
async def leave(sid, data):
    sio.leave_room(sid, data["room"])
    return {"ok": True, "room": data["room"]}


@sio.event
async def message(sid, data):
    room = data["room"]
    await sio.emit("message", {"room": room, "text": data["text"]}, room=room, skip_sid=sid)
    return {"ok": True, "room": room, "members": len(list(sio.manager.get_participants("/", room)))}

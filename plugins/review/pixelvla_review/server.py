"""The server of the page; one thread reads frames, segments and writes, so nothing happens twice at once."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import socket
import webbrowser
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from aiohttp import web

from pixelvla_core.annotations.schema import Annotation
from pixelvla_core.errors import UserError
from pixelvla_review.guard import Guard
from pixelvla_review.parts import Parts
from pixelvla_review.pictures import jpeg, outlines, tile
from pixelvla_review.redraw import drawn_frame, prompts_of, redrawn
from pixelvla_review.seeds import read_seeds, write_seed
from pixelvla_review.store import Store

PAGE = Path(__file__).parent / "page"
_FILES = {"app.js": "text/javascript", "style.css": "text/css"}
_MOST_BYTES = 64 * 1024


class Server:
    """One sidecar on one page.

    Args:
        store: the decisions.
        parts: recording, segmenter, tracker.
        token: what every request must carry; a random one if left out.
    """

    def __init__(self, store: Store, parts: Parts, token: str | None = None) -> None:
        self.store, self.parts = store, parts
        self.token = token or secrets.token_urlsafe(24)
        self._thread = ThreadPoolExecutor(1)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[Guard(self.token)], client_max_size=_MOST_BYTES)
        number = r"{episode:\d{1,7}}"
        app.add_routes(
            [
                web.get("/", self.page),
                web.get("/page/{name}", self.file),
                web.get("/api/episodes", self.episodes),
                web.get(f"/api/episode/{number}", self.episode),
                web.get(f"/api/tile/{number}", self.tile),
                web.get(rf"/api/frame/{number}/{{frame:\d{{1,9}}}}", self.frame),
                web.post("/api/preview", self.preview),
                web.post("/api/decide", self.decide),
                web.post("/api/undo", self.undo),
                web.get("/api/seeds", self.seeds),
                web.post("/api/seeds", self.seed),
            ]
        )
        return app

    async def page(self, request: web.Request) -> web.Response:
        text = (PAGE / "index.html").read_text(encoding="utf-8").replace("{{token}}", self.token)
        return web.Response(text=text, content_type="text/html")

    async def file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in _FILES:
            raise web.HTTPNotFound(text="There is no such file.")
        return web.Response(text=(PAGE / name).read_text(encoding="utf-8"), content_type=_FILES[name])

    async def episodes(self, request: web.Request) -> web.Response:
        """All episodes in a few columns; pictures are asked for one by one as they come into view."""
        return web.json_response(await self._run(self._episodes))

    def _episodes(self) -> dict[str, Any]:
        notes, decided = self.store.order(), self.store.decided()
        return {
            "dataset": self.parts.recording.name,
            "camera": self.parts.recording.camera,
            "who": self.store.who,
            "episodes": [self._line(note, decided) for note in notes],
        }

    def _line(self, note: Any, decided: dict[int, str]) -> list[Any]:
        score = round(note.score, 4) if math.isfinite(note.score) else 0
        return [note.episode, score, note.kept, note.reason, note.target, decided.get(note.episode), note.close_frame]

    async def episode(self, request: web.Request) -> web.Response:
        return web.json_response(await self._run(self._detail, int(request.match_info["episode"])))

    def _detail(self, episode: int) -> dict[str, Any]:
        rows = self.store.rows(episode)
        row, frame = _shown(rows), drawn_frame(rows)
        note = asdict(self.store.notes[episode])
        note["instruction"] = note["instruction"] or self.parts.recording.instruction(episode)
        mask = outlines(row.mask.decode()) if row and row.mask else []
        return {**note, "frame": frame, "rows": len(rows), "mask": mask}

    async def tile(self, request: web.Request) -> web.Response:
        return _picture(await self._run(self._tile, int(request.match_info["episode"])))

    def _tile(self, episode: int) -> bytes:
        rows = self.store.rows(episode)
        image = self.parts.frame(episode, drawn_frame(rows))
        return jpeg(tile(image, _shown(rows), self.store.notes[episode].region))

    async def frame(self, request: web.Request) -> web.Response:
        episode, frame = (int(request.match_info[name]) for name in ("episode", "frame"))
        return _picture(await self._run(lambda: jpeg(self.parts.frame(episode, frame))))

    async def preview(self, request: web.Request) -> web.Response:
        data = await _json(request)
        return web.json_response(await self._run(self._preview, data))

    def _preview(self, data: dict[str, Any]) -> dict[str, Any]:
        mask = self._mask(data)
        return {"mask": outlines(mask), "share": float(mask.mean())}

    def _mask(self, data: dict[str, Any]) -> Any:
        episode, prompts = _episode(data), prompts_of(data)
        mask = self.parts.segment(self.parts.frame(episode, drawn_frame(self.store.rows(episode))), prompts)
        if not mask.any():
            raise UserError("The segmenter finds nothing there. Drag a box close around the object, or click again.")
        return mask

    async def decide(self, request: web.Request) -> web.Response:
        data = await _json(request)
        return web.json_response(await self._run(self._decide, data))

    def _decide(self, data: dict[str, Any]) -> list[Any]:
        episode, what = _episode(data), data.get("what")
        rows = self.store.rows(episode)
        if what == "redraw":
            mask = self._mask(data)
            target = self.store.notes[episode].target or next((row.target for row in rows), "")
            prompts = {"points": data.get("points") or [], "box": data.get("box"), "frame": drawn_frame(rows)}
            after = redrawn(self.parts, episode, rows, target, mask, through=self.store.followed)
            note = self.store.redraw(episode, after, prompts)
        elif what in ("keep", "reject"):
            note = self.store.keep(episode) if what == "keep" else self.store.reject(episode)
        else:
            raise UserError(f"what is {what!r}; expected keep, reject or redraw.")
        return self._line(note, self.store.decided())

    async def undo(self, request: web.Request) -> web.Response:
        await _json(request)
        note = await self._run(self.store.undo)
        return web.json_response(self._line(note, self.store.decided()) if note else None)

    async def seeds(self, request: web.Request) -> web.Response:
        return web.json_response(await self._run(read_seeds, self.store.folder))

    async def seed(self, request: web.Request) -> web.Response:
        data = await _json(request)
        episode, point = _episode(data), data.get("point")
        if not isinstance(point, list):
            raise UserError(f"point is {str(point)[:80]}; expected [x, y].")
        prompts_of({"points": [[*point, 1]]})
        if episode not in self.store.notes:
            raise UserError(f"There is no episode {episode}.")
        return web.json_response(await self._run(write_seed, self.store.folder, episode, *point))

    async def _run(self, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)


def serve(store: Store, parts: Parts, port: int, *, browser: bool) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: the port is taken.
    """
    server = Server(store, parts)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()  # before the address is printed: whoever opens it at once waits instead of being refused
    except OSError as error:
        raise UserError(f"Port {port} of 127.0.0.1 cannot be had: {error.strerror}. Give another --port.") from error
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/?token={server.token}"
    click.echo(f"Review on {address}\nEvery decision is saved at once; Ctrl-C ends.")
    if browser:
        webbrowser.open(address)
    web.run_app(server.app(), sock=listener, print=None, access_log=None)


def _shown(rows: list[Annotation]) -> Annotation | None:
    """The row of the object to act on, on the frame that is shown."""
    frame = drawn_frame(rows)
    return next((row for row in rows if row.frame == frame and not row.instance), None)


def _picture(content: bytes) -> web.Response:
    return web.Response(body=content, content_type="image/jpeg")


async def _json(request: web.Request) -> dict[str, Any]:
    """The JSON object that a request carries.

    Raises:
        UserError: it carries something else.
    """
    if request.content_type != "application/json":
        raise UserError(f"The request is {request.content_type}; expected application/json.")
    try:
        data = json.loads(await request.text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"The request is no JSON: {error}.") from error
    if not isinstance(data, dict):
        raise UserError(f"The request is {str(data)[:80]}; expected a JSON object.")
    return data


def _episode(data: dict[str, Any]) -> int:
    episode = data.get("episode")
    if not isinstance(episode, int) or isinstance(episode, bool):
        raise UserError(f"episode is {str(episode)[:80]!r}; expected a number.")
    return episode

"""Who may talk to the server: only the page it handed the token to, under its own address.

A page of another site in the same browser can send requests to 127.0.0.1 too, and a name of its own can point there;
so every request needs the token, the server's own name in Host, and its own address in Origin where there is one.
"""

from __future__ import annotations

import hmac

from aiohttp import web
from aiohttp.typedefs import Handler

from pixelvla_core.errors import UserError

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@web.middleware
class Guard:
    """Refuses strangers, and answers errors of the user in JSON."""

    def __init__(self, token: str) -> None:
        self.token = token

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check(request)
            response = await handler(request)
        except UserError as error:
            response = web.json_response({"error": str(error)}, status=422)
        except web.HTTPException as error:
            response = web.json_response({"error": error.text or error.reason}, status=error.status)
        except OSError as error:
            response = web.json_response({"error": f"{error}. Nothing is lost; try again."}, status=500)
        response.headers.update(HEADERS)
        return response

    def _check(self, request: web.Request) -> None:
        port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
        own = {f"127.0.0.1:{port}", f"localhost:{port}"}
        if request.headers.get("Host", "") not in own:
            raise web.HTTPForbidden(text="This server answers only under its own address on 127.0.0.1.")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in own}:
            raise web.HTTPForbidden(text="A page of another origin may not ask this server.")
        given = request.headers.get("X-Token") or request.query.get("token", "")
        if not hmac.compare_digest(given.encode(errors="replace"), self.token.encode()):
            raise web.HTTPForbidden(text="The token is missing or wrong: open the address that was printed.")

"""The page on this machine alone: 127.0.0.1, no other host or origin, nothing fetched or sent elsewhere."""

import socket
import webbrowser
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from statprune.errors import InputError
from statprune.explore.choices import Explored
from statprune.explore.page import STYLE, page, theme
from statprune.explore.runs import Runs

HOST = "127.0.0.1"
HOSTS = [HOST, "localhost"]


class OwnOrigin:
    """Answers no request that a page of another origin has sent (ASGI middleware)."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or answer 403."""
        headers = {name.decode(): value.decode("latin-1") for name, value in scope.get("headers", ())}
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            await PlainTextResponse("another origin", status_code=403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def application(explored: Explored, runs: Runs) -> FastAPI:
    """The page as an ASGI application: Gradio's, behind the checks of host and origin."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(OwnOrigin)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page(explored, runs),
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        theme=theme(),
        css=STYLE,
    )
    return mounted


def bound(port: int) -> socket.socket:
    """A socket on this machine alone; port 0 takes a free one.

    Raises:
        InputError: the port is taken, or cannot be used.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} of {HOST} cannot be used: {error}. Give another, or 0.") from error


def serve(explored: Explored, *, port: int, browser: bool, ready: Callable[[str], None]) -> list[str]:
    """Serve until Ctrl-C; then end the compressions that go on, and return what they said.

    Args:
        explored: what the page is over.
        port: 0 takes a free one.
        browser: whether to open the page in one.
        ready: called with the page's address.

    Raises:
        InputError: the port cannot be used.
    """
    runs, listening = Runs(), bound(port)
    url = f"http://{HOST}:{listening.getsockname()[1]}/"
    config = uvicorn.Config(
        application(explored, runs),
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=1,  # open tabs keep connections, and would keep the server
    )
    server = uvicorn.Server(config)
    ready(url)  # the socket listens: who asks before the server is up waits a moment
    if browser:
        webbrowser.open(url)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        listening.close()
        left = runs.end()
    return [f"{seen.out}: {seen.message or 'done'}" for seen in left]

"""What `toydiff app` serves: `main.py`, and a page for every address.

To an address below a page, such as `paths/x`, Streamlit sends its own page, whose scripts it then does not find: it
stays white.
"""

from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import get_option
from streamlit.starlette import App

FILES = ("_stcore", "app", "component", "media", "static")
"""Below these Streamlit has files."""


class OneLevel:
    """Sends who opens `name/and/more` to `name`: a page, or the one that says that there is none."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page, *below = _levels(scope) or [""]
        if not page or not below or page in FILES or "text/html" not in Headers(scope=scope).get("accept", ""):
            return await self.app(scope, receive, send)
        query = scope["query_string"].decode("latin-1")
        # not from the root: a proxy may have taken a part of the path away
        where = "../" * len(below) + quote(page, safe="") + (f"?{query}" if query else "")
        await RedirectResponse(where)(scope, receive, send)


def _levels(scope: Scope) -> list[str]:
    """The parts of a page's address below the app's own."""
    base = get_option("server.baseUrlPath").strip("/")
    own = f"/{base}/" if base else "/"
    return scope["path"].removeprefix(own).split("/") if scope.get("path", "").startswith(own) else []


app = App("main.py", middleware=[Middleware(OneLevel)])

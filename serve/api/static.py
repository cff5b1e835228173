"""The dashboard's files: exported pages with their fallbacks and cache headers."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from fastapi import FastAPI
from starlette.responses import FileResponse, HTMLResponse, Response

from serve.api.errors import error_response

IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"
HASHED = "_next/static/"
"""Files whose names change with their content."""
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
NO_DASHBOARD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>raytape</title>
<body style="font:16px/1.6 system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem">
<h1>raytape</h1><p>The dashboard is not built: run <code>make dashboard</code>.</p>
<p><a href="/docs">The API</a> · <a href="/readyz">Readiness</a></p></body></html>"""

Found = tuple[Path, Literal[200, 404]]


def find(root: Path, path: str) -> Found | None:
    """The file that answers a path: itself, its ``index.html``, its ``.html``, else the 404 page.

    Args:
        root: Folder of the export; nothing outside of it is ever found.
        path: Path of the request, without the leading slash.

    Returns:
        The file and the status, or ``None`` when not even a 404 page is there.
    """
    root = root.resolve()
    if "\0" not in path:
        clean = path.strip("/")
        for name in (clean, f"{clean}/index.html", f"{clean}.html"):
            wanted = (root / name.lstrip("/")).resolve()
            if wanted.is_relative_to(root) and wanted.is_file():
                return wanted, 200
    missing = root / "404.html"
    return (missing, 404) if missing.is_file() else None


def add(app: FastAPI, folder: Callable[[], Path | None]) -> None:
    """Serve the dashboard below everything else.

    Args:
        app: The application.
        folder: Where the export is, asked at each request.
    """

    async def page(path: str) -> Response:
        if path.startswith("v1/"):
            return error_response(404, "not_found", f"There is nothing at /{path[:200]}.")
        root = folder()
        if root is None or not root.is_dir():
            if path == "":
                return HTMLResponse(NO_DASHBOARD, headers={"Cache-Control": REVALIDATE, **SECURITY})
            return error_response(404, "not_found", "The dashboard is not built.")
        found = find(root, path)
        if found is None:
            return error_response(404, "not_found", f"There is nothing at /{path[:200]}.")
        file, status = found
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        cache = IMMUTABLE if path.startswith(HASHED) and status == 200 else REVALIDATE
        headers = {"Cache-Control": cache, **SECURITY}
        return FileResponse(file, status_code=status, media_type=kind, headers=headers)

    app.add_api_route(
        "/{path:path}", page, methods=["GET", "HEAD"], include_in_schema=False, response_model=None
    )

"""Errors as answers: one envelope, the right status, never a stack trace."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pipelines.errors import RaytapeError
from serve.platform_schemas import ErrorAnswer

log = logging.getLogger(__name__)

RETRY_AFTER_S = 2
CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}

ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "Unknown symbol or address."},
    422: {"model": ErrorAnswer, "description": "A field is wrong; `detail` names it."},
    503: {"model": ErrorAnswer, "description": "Not ready; see `Retry-After`."},
}


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        code: Stable name for programs.
        message: Sentence for people.
        detail: More.
    """

    def __init__(self, status: int, code: str, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.detail = status, code, message, detail


def unknown_symbol(symbol: str) -> ApiError:
    """404 of a symbol that nobody follows."""
    return ApiError(
        404, "unknown_symbol", f"No such symbol: {symbol[:32]}.", {"symbol": symbol[:32]}
    )


def unavailable(message: str) -> ApiError:
    """503: try again."""
    return ApiError(503, "unavailable", message)


def error_response(
    status: int,
    code: str,
    message: str,
    detail: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The envelope."""
    body = orjson.dumps({"error": {"code": code, "message": message, "detail": detail}})
    own = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else {}
    return Response(
        body, status_code=status, media_type="application/json", headers={**own, **(headers or {})}
    )


def invalid(problems: list[Any]) -> Response:
    """422 of a validation's problems: each with its field and a sentence."""
    detail = [
        {
            "field": ".".join(str(part) for part in problem["loc"] if part != "body") or "body",
            "message": problem["msg"],
        }
        for problem in problems[:20]
    ]
    first = detail[0]
    return error_response(422, "invalid", f"{first['field']}: {first['message']}", detail)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of an application in the envelope."""

    async def on_api_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)  # noqa: S101
        return error_response(error.status, error.code, error.message, error.detail)

    async def on_request(_: Request, error: Exception) -> Response:
        assert isinstance(error, (RequestValidationError, ValidationError))  # noqa: S101
        return invalid(list(error.errors()))

    async def on_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        code = CODES.get(error.status_code, f"http_{error.status_code}")
        return error_response(error.status_code, code, str(error.detail), headers=error.headers)

    async def on_ours(request: Request, error: Exception) -> Response:
        log.warning("%s %s: %s", request.method, request.url.path, error)
        return error_response(503, "unavailable", str(error))

    async def on_any(request: Request, error: Exception) -> Response:
        log.error("%s %s", request.method, request.url.path, exc_info=error)
        return error_response(500, "internal", "This should not have happened; the log knows more.")

    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(RequestValidationError, on_request)
    app.add_exception_handler(ValidationError, on_request)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RaytapeError, on_ours)
    app.add_exception_handler(Exception, on_any)

"""``/v1/signals``: what the policy says. Nothing slow happens on this event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from serve.api.errors import ERRORS, ApiError, add_error_handlers, unavailable, unknown_symbol
from serve.api.paging import Page, SymbolPath, page_of
from serve.asked import OtherFeatures, UnknownSymbol, WrongFeatures
from serve.bars import between, page
from serve.decide import SignalService
from serve.mirror import FeedLost, Mirror
from serve.platform_schemas import ErrorAnswer
from serve.policy import Policy
from serve.schemas import BatchAnswer, BatchRequest, Signal, SignalPage, SignalRequest

PREFIX = "/v1/signals"
FIRST_SYNC_S = 5.0
MAX_BODY = 16 * 1024 * 1024
JSON = "application/json"
OTHER_FEATURES: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "The features are not those that are served."}
}


class SignalParts:
    """What the application needs.

    Args:
        mirror: What is known of the market.
        policy: What decides.
        service: What answers.
    """

    def __init__(self, mirror: Mirror, policy: Policy, service: SignalService) -> None:
        self.mirror, self.policy, self.service = mirror, policy, service


def _body(model: type[Any]) -> dict[str, Any]:
    """The request body for OpenAPI; it is read by hand, for speed."""
    return {
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}},
        }
    }


def _answer(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type=JSON)


def _wrong(error: WrongFeatures) -> ApiError:
    detail = [{"field": error.field, "message": error.message}]
    return ApiError(422, "invalid", str(error), detail)


async def _read(request: Request) -> bytes:
    body = await request.body()
    if len(body) > MAX_BODY:
        raise ApiError(413, "too_large", "The request is too large.")
    return body


def build(open_parts: Callable[[], SignalParts] | None = None) -> FastAPI:
    """The application; without parts only its description is of use."""
    held: list[SignalParts] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        assert open_parts is not None  # noqa: S101
        parts = open_parts()
        parts.policy.start()
        parts.mirror.start()
        # The published signals say where the accounts stand: know them before the first question.
        await parts.mirror.wait_synced(FIRST_SYNC_S)
        held.append(parts)
        yield
        held.clear()
        await parts.mirror.stop()
        parts.policy.stop()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    add_error_handlers(app)

    @app.post(
        PREFIX,
        response_model=Signal,
        responses=ERRORS,
        openapi_extra=_body(SignalRequest),
        tags=["signals"],
        summary="Ask for a signal",
    )
    async def ask(request: Request) -> Response:
        """The signal of the latest closed bar, or of features that are given."""
        wanted = SignalRequest.model_validate_json(await _read(request))
        service = held[0].service
        if wanted.features is not None:
            try:
                given = service.given(
                    wanted.symbol,
                    wanted.features,
                    position_fraction=wanted.position_fraction,
                    cash_fraction=wanted.cash_fraction,
                )
            except WrongFeatures as error:
                raise _wrong(error) from error
            return _answer(given)
        try:
            return _answer(service.latest(wanted.symbol))
        except UnknownSymbol as error:
            raise unknown_symbol(wanted.symbol) from error

    @app.post(
        f"{PREFIX}/batch",
        response_model=BatchAnswer,
        responses=ERRORS | OTHER_FEATURES,
        openapi_extra=_body(BatchRequest),
        tags=["signals"],
        summary="Ask for many signals",
    )
    async def ask_many(request: Request) -> Response:
        """One signal per symbol, in order; the same (symbol, bar) always gets the same one."""
        wanted = BatchRequest.model_validate_json(await _read(request))
        bars = None
        if wanted.bars is not None:
            bars = [bar.model_dump() if bar else None for bar in wanted.bars]
        try:
            signals = held[0].service.batch(
                wanted.symbols, wanted.features, bars, wanted.reasons,
                fingerprint=wanted.fingerprint,
            )  # fmt: skip
        except OtherFeatures as error:
            raise ApiError(409, "other_features", str(error)) from error
        except WrongFeatures as error:
            raise _wrong(error) from error
        except ValueError as error:
            raise ApiError(422, "invalid", str(error)) from error
        return _answer({"signals": signals})

    @app.get(
        f"{PREFIX}/{{symbol}}",
        response_model=SignalPage,
        responses=ERRORS,
        tags=["signals"],
        summary="Published signals of a symbol",
    )
    async def published(symbol: SymbolPath, wanted: Annotated[Page, Depends(page_of)]) -> Response:
        """Signals as they were published, newest first."""
        mirror = held[0].mirror
        if symbol not in mirror.symbols:
            raise unknown_symbol(symbol)
        try:
            rows = await mirror.feed.rows("signals", symbol)
        except FeedLost as error:
            raise unavailable("The feed does not answer.") from error
        rows = between(rows, start_ns=wanted.start_ns, end_ns=wanted.end_ns)
        items, cursor = page(rows, limit=wanted.limit)
        return _answer({"items": items, "next": cursor})

    return app

"""The routes of the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from video_llama import __version__
from video_llama.serving.api_error import RETRY_AFTER_S, ApiError, ErrorReply
from video_llama.serving.chat_reply import ChatReply
from video_llama.serving.chat_request import ChatRequest
from video_llama.serving.completions import Completions
from video_llama.serving.request_guard import CLIENT

log = logging.getLogger(__name__)

CLIENT_GONE = 499
"""Status of a response that nobody reads."""
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorReply, "description": "a field is wrong, a file cannot be used, or the context is exceeded"},
    401: {"model": ErrorReply, "description": "no valid key"},
    404: {"model": ErrorReply, "description": "no such model"},
    408: {"model": ErrorReply, "description": "the request comes too slowly"},
    413: {"model": ErrorReply, "description": "the request is too long"},
    421: {"model": ErrorReply, "description": "the Host header names another machine"},
    422: {"model": ErrorReply, "description": "a URL could not be fetched"},
    429: {"model": ErrorReply, "description": "too many wait already; see Retry-After"},
    500: {"model": ErrorReply, "description": "a fault of the server"},
    503: {"model": ErrorReply, "description": "the server is about to stop, or out of memory; see Retry-After"},
    504: {"model": ErrorReply, "description": "the answer took too long"},
}
COMMON: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (408, 413, 421)}


class Model(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "video_llama"
    max_model_len: int


class ModelList(BaseModel):
    """The models that are served: one."""

    object: Literal["list"] = "list"
    data: list[Model]


class State(BaseModel):
    """Whether questions are accepted, and how many there are."""

    status: Literal["ready", "shutting down"]
    running: int
    waiting: int


def build_application(completions: Completions, is_draining: Callable[[], bool]) -> FastAPI:
    """Return the application.

    Args:
        completions: answers requests.
        is_draining: whether the server is about to stop.
    """
    app = FastAPI(
        title="video_llama",
        version=__version__,
        description="Questions about videos, images and sound, in the protocol of OpenAI's API.",
        redoc_url=None,
        redirect_slashes=False,  # the address would be that of the Host header
        responses=COMMON,
    )
    add_error_handlers(app)
    model = Model(
        id=completions.model.name, created=completions.model.created, max_model_len=completions.model.max_context
    )

    @app.post(
        "/v1/chat/completions",
        response_model=ChatReply,
        responses={
            **ERRORS,
            200: {
                "description": "the answers; with stream: true, server-sent events of chunks",
                "content": {
                    "text/event-stream": {
                        "schema": {"type": "string", "description": "data: CHUNK, for each chunk; then data: [DONE]"}
                    }
                },
            },
        },
    )
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer the last message of a dialogue."""
        if is_draining():
            raise ApiError(503, "the server is about to stop", code="shutting_down", retry_after_s=RETRY_AFTER_S)
        return await unless_gone(request, completions.respond(body, request.scope.get(CLIENT, "")))

    @app.get("/v1/models", responses={401: ERRORS[401]})
    async def list_models() -> ModelList:
        """List the model that is served."""
        return ModelList(data=[model])

    @app.get("/v1/models/{name:path}", responses={401: ERRORS[401], 404: ERRORS[404]})
    async def show_model(name: str) -> Model:
        """Describe a model."""
        if name != model.id:
            raise ApiError(404, f"The model `{name[:100]}` does not exist.", param="model", code="model_not_found")
        return model

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Report that the server is running."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"model": State}})
    async def ready(response: Response) -> State:
        """Tell whether questions are accepted."""
        response.status_code = 503 if is_draining() else 200
        worker = completions.worker
        status: Literal["ready", "shutting down"] = "shutting down" if is_draining() else "ready"
        return State(status=status, running=worker.n_running, waiting=worker.n_waiting)

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Return the server's metrics in Prometheus' format."""
        return Response(completions.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def add_error_handlers(app: FastAPI) -> None:
    """Give all errors the shape of OpenAI's API."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return await refused(_, validation_error(error))

    @app.exception_handler(HTTPException)
    async def no_route(_: Request, error: HTTPException) -> Response:
        body = ApiError(error.status_code, str(error.detail)).body
        return JSONResponse(body, error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        return JSONResponse(ApiError(500, "a fault of the server; its log says more", code="internal_error").body, 500)


def validation_error(error: RequestValidationError) -> ApiError:
    """Return what is wrong with a body: of several problems the one that is deepest in it, since of the kinds of values that a
    field takes, that is the one that was meant."""
    problem = max(error.errors(), key=lambda found: len(found["loc"]))
    where = place(problem["loc"][1:], error.body)
    message = "the body is not valid JSON" if problem["type"] == "json_invalid" else problem["msg"]
    if problem["type"] == "model_attributes_type" and not where:
        message = "the body has to be a JSON object, with Content-Type: application/json"
    return ApiError(400, f"{where}: {message}" if where else message, param=where or None, code=problem["type"])


def place(location: tuple[int | str, ...], body: Any) -> str:
    """Return where a problem is, such as ``messages[0].content[1].type``, without the names of kinds of values."""
    found = ""
    for k, step in enumerate(location):
        is_last = k == len(location) - 1
        if isinstance(step, int):
            if not isinstance(body, list):
                break
            found += f"[{step}]"
            body = body[step] if step < len(body) else None
        elif isinstance(body, Mapping) and (step in body or is_last):
            found += f".{step}" if found else step
            body = body.get(step)
    return found


async def unless_gone(request: Request, work: Awaitable[Response]) -> Response:
    """Do work for a request; if its client disconnects, cancel it."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
            return Response(status_code=CLIENT_GONE)
        return working.result()
    finally:
        watching.cancel()
        working.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

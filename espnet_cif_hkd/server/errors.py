"""Errors in the format of OpenAI's interface."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: The HTTP status.
        message: One line for the client; without paths of the server.
        code: A word for programs.
        param: The field of the form that is wrong.
        headers: Of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers

    def fields(self) -> dict[str, Any]:
        """Return the content of ``error`` in OpenAI's format."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }

    def response(self) -> JSONResponse:
        """Return the HTTP response."""
        return JSONResponse(
            {"error": self.fields()},
            status_code=self.status,
            headers=None if self.headers is None else dict(self.headers),
        )


def internal_error() -> ApiError:
    """Return the error for an unexpected exception, without its details."""
    return ApiError(500, "internal error: see the log of the server", "internal_error")


def add_handlers(app: FastAPI) -> None:
    """Answer every error of ``app`` in OpenAI's format."""

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error.response()

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}
        return ApiError(
            error.status_code,
            str(error.detail),
            code.get(error.status_code, "invalid_request"),
            headers=error.headers,
        ).response()

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return internal_error().response()  # uvicorn logs the exception

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)

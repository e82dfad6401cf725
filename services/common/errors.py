"""Failures that a person will read about: they become an error frame, never a traceback."""

from __future__ import annotations

from baton_proto.messages import Error, ErrorCode

DEADLINE = Error(code="deadline", message="The answer took longer than its deadline allows.", retryable=True)


class ServiceError(Exception):
    """A failure with a name in the protocol. `message` is shown to the client: no secrets, no internals, a hint where
    there is one. `retryable` means that the same question may well succeed later."""

    def __init__(
        self, code: ErrorCode, message: str, *, retryable: bool = False, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms

    def frame(self) -> Error:
        """The frame that tells it to the client."""
        return Error(code=self.code, message=self.message, retryable=self.retryable, retry_after_ms=self.retry_after_ms)


def no_worker(stage: str) -> ServiceError:
    """Nobody alive would take work of this stage."""
    message = f"No worker for '{stage}' is running. Try again when one is."
    return ServiceError("no_worker", message, retryable=True, retry_after_ms=5_000)

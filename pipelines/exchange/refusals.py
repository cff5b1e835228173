"""What the exchange's REST interface refuses, in the vendor's shape. Pure."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        message: The vendor's sentence.
        code: The vendor's number; by default the status with five zeros, as it often does.
        more: Further keys of the answer.
    """

    def __init__(self, status: int, message: str, *, code: int | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = status * 100_000 if code is None else code
        self.more = more

    def body(self) -> dict[str, Any]:
        """The answer.

        >>> Refused(422, "qty must be > 0").body()
        {'code': 42200000, 'message': 'qty must be > 0'}
        """
        return {"code": self.code, "message": self.message, **self.more}

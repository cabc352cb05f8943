"""The error for one image that cannot be read, as opposed to a storage that fails."""

from __future__ import annotations

from imagebatch.contracts.records import Reason
from imagebatch.errors import one_line

MAX_DETAIL = 200


class ImageUnavailableError(Exception):
    """An image that cannot be taken, with the reason that its row will carry.

    Attributes:
        reason: One of the fixed list.
        detail: One line for a person.
    """

    def __init__(self, reason: Reason, detail: object) -> None:
        self.reason = reason
        self.detail = one_line(detail, MAX_DETAIL)
        super().__init__(f"{reason}: {self.detail}")

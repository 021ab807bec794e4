"""The words of a scenario's step, and the times that are written in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def microseconds_at(words: str) -> int:
    """Turn '2026-11-21 23:59' (UTC) into microseconds since 1970."""
    return (datetime.fromisoformat(words).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )


class Words:
    """A step's words, taken one by one."""

    def __init__(self, text: str) -> None:
        self._left = text.split()

    def take(self) -> str:
        assert self._left, "something is missing here"
        return self._left.pop(0)

    def amount(self) -> int:
        return int(self.take())

    def when(self) -> int:
        return microseconds_at(f"{self.take()} {self.take()}")

    def skip(self, word: str) -> bool:
        """Take the next word if it is this one."""
        found = self._left[:1] == [word]
        if found:
            del self._left[0]
        return found

    def at_number(self) -> bool:
        return bool(self._left) and self._left[0].lstrip("-").isdigit()

    def listed(self) -> tuple[str, ...]:
        """Take the next word as a list without blanks: 'key:a,app:b'."""
        return tuple(self.take().split(","))

    def pairs(self) -> dict[str, int]:
        """Take all that is left as 'name amount name amount'."""
        found = {}
        while self._left:
            name = self.take()
            found[name] = self.amount()
        return found

    def rest(self) -> list[str]:
        taken, self._left = self._left, []
        return taken

    def end(self) -> None:
        assert not self._left, f"not understood: {' '.join(self._left)}"

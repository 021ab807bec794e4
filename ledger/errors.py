"""What the ledger raises. A refusal is a value (`ledger.model.Refused`), not an exception.

LedgerError
├── UnknownAccount     no such account
├── UnknownHold        a hold that this ledger never had was to be ended, or the call of one refunded
├── UnknownGrant       no such grant
├── UnknownClock       no such test clock
├── Conflict           a command contradicts what is recorded
├── Overloaded         the admission queue is full
├── LedgerUnavailable  the store could not commit; nothing was written
└── LedgerLocked       another process owns the store
"""

from __future__ import annotations

__all__ = [
    "Conflict",
    "LedgerError",
    "LedgerLocked",
    "LedgerUnavailable",
    "Overloaded",
    "UnknownAccount",
    "UnknownClock",
    "UnknownGrant",
    "UnknownHold",
]


class LedgerError(Exception):
    """Anything that the ledger raises."""


class UnknownAccount(LedgerError):
    """No account has this id."""


class UnknownHold(LedgerError):
    """A hold was to be ended that is neither open nor recorded as ended, or a call refunded that has not ended."""


class UnknownGrant(LedgerError):
    """The account has no grant of this id."""


class UnknownClock(LedgerError):
    """There is no test clock of this id."""


class Conflict(LedgerError):
    """A command contradicts what is recorded, such as a second hold under one id."""


class Overloaded(LedgerError):
    """The admission queue is full; nothing was written, the caller may try again."""


class LedgerUnavailable(LedgerError):
    """The store could not commit; nothing of the command was written, unless only the commit's answer was lost.

    nobodys: no command is at fault, and each by itself would fail too. perhaps_done: the commit had been asked for.
    """

    def __init__(self, message: str, *, nobodys: bool = False, perhaps_done: bool = False) -> None:
        super().__init__(message)
        self.nobodys = nobodys
        self.perhaps_done = perhaps_done


class LedgerLocked(LedgerError):
    """Another process owns the store; the message says which."""

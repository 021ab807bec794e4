"""Logs on stderr: a readable line each, or JSON. Never keys, never content."""

from __future__ import annotations

import logging
import sys
import time

import orjson

__all__ = ["set_up"]


class _JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        call = getattr(record, "call", None)
        if call is not None:
            document |= call
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(document).decode()


def set_up(*, json: bool) -> None:
    """Send the house's logs to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    if json:
        handler.setFormatter(_JSONFormatter())
    else:
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("farebox").setLevel(logging.INFO)
    # Neither is asked on the paid path what thread or process it is.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False

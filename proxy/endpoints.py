"""The metered endpoints, those of later releases included: they are refused by name."""

from __future__ import annotations

__all__ = ["CHAT", "METERED"]

CHAT = "/v1/chat/completions"

METERED = (
    CHAT,
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/embeddings",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/videos",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/web/extract",
)

"""Farebox's own API described as an OpenAPI 3.1 document, for client generators and readers."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from proxy.errors_catalogue import ERRORS
from proxy.openapi_admin import admin_schemas
from proxy.openapi_prices import price_schemas
from proxy.openapi_routes import ROUTES, Described
from proxy.openapi_schemas import AMOUNT, ref, schemas

__all__ = ["openapi_document"]

_JSON = "application/json"
_SCHEMAS = {**schemas(), **price_schemas(), **admin_schemas()}
_TAGS = {
    "models": "Calling models",
    "credits": "The caller's credits",
    "admin": "Administration",
    "server": "The server",
}


def openapi_document() -> dict[str, Any]:
    """Write the document: every route, what it takes, answers and refuses."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route)
    refused = sorted({status for route in ROUTES for status in route.refuses})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Farebox",
            "version": version("farebox"),
            "summary": "An OpenAI-compatible proxy that sells AI calls for credits",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "responses": {f"Refused{status}": _refusal(status) for status in refused},
            "securitySchemes": {
                "caller": {"type": "http", "scheme": "bearer", "description": "A caller's key, `fbx_…`."},
                "admin": {"type": "http", "scheme": "bearer", "description": "The operator's admin key."},
            },
        },
    }


def _tag(route: Described) -> str:
    if route.key == "admin":
        return "admin"
    if route.path.startswith("/v1/credits"):
        return "credits"
    return "models" if route.path.startswith("/v1/") else "server"


def _operation(route: Described) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [_tag(route)],
        "security": [{route.key: []}] if route.key else [],
        "responses": {str(route.status): _answer(route)}
        | {str(status): {"$ref": f"#/components/responses/Refused{status}"} for status in route.refuses},
    }
    if route.path == "/readyz":
        operation["responses"]["503"] = _answer(route)
    if "If-None-Match" in route.headers:
        operation["responses"]["304"] = {"description": "It is still as the tag says."}
    parameters = list(route.parameters())
    if parameters:
        operation["parameters"] = parameters
    if route.sends is not None:
        # Without a body nothing is sent but the defaults; where a member is required, that is too little.
        required = "required" in _SCHEMAS[route.sends]
        operation["requestBody"] = {"required": required, "content": {_JSON: {"schema": ref(route.sends)}}}
    return operation


def _answer(route: Described) -> dict[str, Any]:
    content: dict[str, Any] = {} if route.answers is None else {_JSON: {"schema": route.schema()}}
    content |= {media: {"schema": {"type": "string"}} for media in route.media}
    headers = {"x-request-id": _header({"type": "string"}, "The request's id; a call's receipt has it.")}
    if "If-None-Match" in route.headers:
        headers |= {
            "etag": _header({"type": "string"}, "Changes when the answer does."),
            "cache-control": _header({"type": "string"}, "How long anybody may keep it."),
        }
    if route.name == "create_chat_completion":
        headers |= {
            "x-credits-charged": _header(AMOUNT, "What the call cost; not streamed."),
            "x-credits-available": _header(AMOUNT, "What is available after it; not streamed."),
            "x-credits-held": _header(AMOUNT, "What is held for the call; streamed."),
            "x-credits-max-tokens": _header({"type": "integer"}, "The output limit, where the call was shortened."),
        }
    return {"description": route.summary, "headers": headers, "content": content}


def _header(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"schema": schema, "description": description}


def _refusal(status: int) -> dict[str, Any]:
    """Describe a status by all the codes that it can carry."""
    errors = [error for error in ERRORS if error.status == status]
    headers: dict[str, Any] = {}
    if any(error.should_retry is not None for error in errors):
        headers["x-should-retry"] = _header({"type": "string", "enum": ["true", "false"]}, "Whether to try again.")
    if status in (402, 409, 429):
        headers["retry-after"] = _header({"type": "string"}, "Seconds to wait before trying again.")
    said = [f"- {f'`{error.code}`' if error.code else 'no code, or the provider’s'}: {error.when}" for error in errors]
    response = {"description": "\n".join(said), "content": {_JSON: {"schema": ref("Error")}}}
    return {**response, "headers": headers} if headers else response

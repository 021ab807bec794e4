"""The demo's account and key: made at the first start, found again at later ones."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ledger.ids import microseconds
from pricing.amounts import NANO, format_credits
from proxy.people.people import NewKey, Profile
from proxy.services import Services

__all__ = ["show_demo"]

_FILE = Path(".farebox") / "demo.json"
_CREDITS = 1000


async def show_demo(services: Services, base: str) -> None:
    """Print the demo's key and how to use it; it is the one key ever kept in clear, in `.farebox/demo.json` (0600)."""
    key = await _key(services)
    account = (await services.people.profiles(1, None, external_id="demo"))[0].account_id
    balance = await services.ledger.balance(account)
    body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "What does Farebox do?"}]})
    sys.stdout.write(
        f"""
The account `demo` has {format_credits(balance.available)} credits. Its key: {key}

Ask something, and see the charge in the headers:

  curl -i {base}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'

What is left:

  curl {base}/v1/credits -H 'Authorization: Bearer {key}'

With OpenAI's SDK: OpenAI(base_url="{base}/v1", api_key="{key}"), model "demo".

"""
    )
    sys.stdout.flush()


async def _key(services: Services) -> str:
    people, ledger = services.people, services.ledger
    found = await people.profiles(1, None, external_id="demo")
    if found:
        account = found[0].account_id
    else:
        account = ledger.next_id()
        await ledger.open_account(account)
        await people.add_account(Profile(account, "demo", None, "demo", "user", microseconds()))
    bucket = "free" if "free" in services.config.buckets else next(iter(services.config.buckets))
    await ledger.issue(account, bucket, _CREDITS * NANO, source_key="demo", note="to try Farebox with")
    kept = _kept()
    caller = await people.identify(kept) if kept else None
    if kept is not None and caller is not None and caller.account_id == account:
        return kept
    secret, _ = await people.add_key(account, ledger.next_id(), microseconds(), NewKey(name="demo"))
    _FILE.parent.mkdir(mode=0o700, exist_ok=True)
    _FILE.unlink(missing_ok=True)
    with os.fdopen(os.open(_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"key": secret}, file)
    return secret


def _kept() -> str | None:
    try:
        key = json.loads(_FILE.read_text())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return key if isinstance(key, str) else None

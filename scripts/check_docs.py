"""Checks the docs: links lead somewhere, decisions are short, every package has its README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:|#)([^)#]+)")
MOST_DECISION_LINES = 40


def problems() -> list[str]:
    """List what is wrong with the docs."""
    found = []
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        page = ROOT / name
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                found.append(f"{name}: link to {target} leads nowhere")
    for decision in (ROOT / "docs" / "decisions").glob("*.md"):
        if len(decision.read_text(encoding="utf-8").splitlines()) > MOST_DECISION_LINES:
            found.append(f"{decision.relative_to(ROOT)}: longer than {MOST_DECISION_LINES} lines")
    found += [
        f"{package}/README.md is missing"
        for package in ("pricing", "ledger", "proxy")
        if not (ROOT / package / "README.md").is_file()
    ]
    return found


if __name__ == "__main__":
    complaints = problems()
    print("\n".join(complaints) or "docs: ok")
    sys.exit(bool(complaints))

"""What providers publish of their models."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.published import PublishedModel, litellm_folder, published_model


@pytest.mark.parametrize(
    ("name", "most_input", "most_output", "reasons", "hides"),
    [
        ("gpt-4.1-mini", 1_047_576, 32_768, False, False),
        ("gpt-5", 272_000, 128_000, True, True),
        ("o3", 200_000, 100_000, True, True),
        ("deepseek/deepseek-reasoner", 131_072, 65_536, True, False),
    ],
)
def test_known_models(name: str, most_input: int, most_output: int, reasons: bool, hides: bool) -> None:
    """Limits are the published ones, and models that think without showing it are told from those that show it."""
    assert published_model(name) == PublishedModel(most_input, most_output, reasons, hides)


@pytest.mark.parametrize("name", ["", "unheard-of", "gpt-4.1-mini ", "GPT-5"])
def test_unknown_models(name: str) -> None:
    """Of a model that is not listed by exactly its name nothing is known, and nothing is guessed."""
    assert published_model(name) == PublishedModel()


def test_litellm_is_not_imported() -> None:
    """Its files are read without importing litellm, which would cost seconds."""
    program = "import sys, proxy.published as p; p.published_model('gpt-5'); print('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert (litellm_folder() / "model_prices_and_context_window_backup.json").is_file()

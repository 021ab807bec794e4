"""`price_changes:` of the config, and prices that have to be meant."""

from __future__ import annotations

import pytest

from pricing.errors import ConfigError
from proxy.config import Config, parse_config

_CONFIG = """
upstreams:
  main: {kind: openai, base_url: "https://api.openai.com/v1"}
  own:  {kind: openai, base_url: "http://127.0.0.1:1/v1"}
models:
  fast:  {upstream: own/one, max_output_tokens: 9, price: {input_tokens: 40 / 1M, output_tokens: 160 / 1M, image: 5}}
  smart: {upstream: [own/two, main/gpt-4.1], max_output_tokens: 9, price: {request: 9}}
operations:
  edit: {min: 2, max: 8, price: {request: 1}}
surcharges: {web_search: 15}
"""
_DECEMBER = 1_796_083_200_000_000
_JANUARY = _DECEMBER + 31 * 86_400_000_000


def _parsed(more: str = "", text: str = _CONFIG) -> Config:
    return parse_config(text + more, "config.yaml", {})


def _refused(more: str = "", text: str = _CONFIG) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        _parsed(more, text)
    return refused.value


_CHANGES = """price_changes:
- effective_from: 2026-12-01
  models: {fast: {output_tokens: 200 / 1M, image: ~, min: 1}}
  surcharges: {web_page: 3}
- effective_from: 2027-01-01T01:00:00+01:00
  models: {fast: {input_tokens: 50 / 1M}, smart: {request: ~, cost_plus: 50%}}
  operations: {edit: {max: 9, min: ~}}
"""


def test_each_change_builds_on_the_one_before() -> None:
    """Member by member: what a change says counts from then on, what is null there goes, and the rest stays."""
    # `smart` has no cost at its own upstream, so the margin has to be on something.
    text = _CONFIG.replace("[own/two, main/gpt-4.1]", "[main/gpt-4.1-mini, main/gpt-4.1]")
    config = _parsed(_CHANGES, text)
    now, december, january = (table for _, table in config.schedule.steps)
    assert [begins for begins, _ in config.schedule.steps] == [0, _DECEMBER, _JANUARY]
    assert config.table == now == _parsed(text=text).table
    for table, output, least in ((now, "160 / 1M", None), (december, "200 / 1M", "1"), (january, "200 / 1M", "1")):
        fast = table.models["fast"]
        assert fast.rules["output_tokens"][0].price.text == output
        assert (fast.least and fast.least.text) == least
    assert "image" in now.models["fast"].rules and "image" not in december.models["fast"].rules
    assert january.models["fast"].rules["input_tokens"][0].price.text == "50 / 1M"
    assert list(now.surcharges) == ["web_search"] and list(january.surcharges) == ["web_search", "web_page"]
    edit = january.operations["edit"]
    assert (edit.least, edit.most and edit.most.text) == (None, "9")
    assert edit.rules == now.operations["edit"].rules
    assert january.models["smart"].rules["input_tokens"][-1].price.text == "60 / 1M"
    assert january.models["smart@main/gpt-4.1"].rules["input_tokens"][-1].price.text == "300 / 1M"
    assert "smart@main/gpt-4.1" not in december.models


def test_who_answers_is_priced_by_the_table_in_force() -> None:
    """With a margin from January on, each of who may answer has a price of its own from then on."""
    text = _CONFIG.replace("[own/two, main/gpt-4.1]", "[main/gpt-4.1-mini, main/gpt-4.1]")
    config = _parsed(_CHANGES, text)
    assert [target.price.model for target in config.models["smart"].targets] == ["smart", "smart"]
    later = config.under(config.schedule.at(_JANUARY))
    assert [target.price.model for target in later.models["smart"].targets] == ["smart", "smart@main/gpt-4.1"]
    assert later.under(config.table).models == config.models


def test_what_has_come_may_be_written_as_if_it_had_always_been() -> None:
    """The same prices are the same version, however they came about."""
    changed = _parsed("price_changes: [{effective_from: 2026-12-01, models: {fast: {image: 6}}}]").schedule.steps[1][1]
    assert changed.version == _parsed(text=_CONFIG.replace("image: 5", "image: 6")).table.version


@pytest.mark.parametrize(
    ("more", "line", "problem"),
    [
        ("price_changes: [{models: {fast: {image: 6}}}]", 11, "`effective_from:` is missing"),
        ("price_changes: [{effective_from: 2026-12-01}]", 11, "changes nothing"),
        ("price_changes: [{effective_from: soon, models: {}}]", 11, "must be a time such as"),
        ("price_changes: [{effective_from: 2026-12-01T00:00:00, models: {}}]", 11, "must be a time such as"),
        ("price_changes: [{effective_from: '9999-12-31T23:59:59-23:59', models: {}}]", 11, "must be a time such as"),
        ("price_changes: [{effective_from: 1970-01-01, models: {}}]", 11, "must be a time such as"),
        (
            "price_changes:\n- {effective_from: 2026-12-01, surcharges: {web_page: 1}}\n"
            "- {effective_from: 2026-12-01, surcharges: {web_page: 2}}",
            13,
            "not after the change before it",
        ),
        ("price_changes:\n- effective_from: 2026-12-01\n  models:\n    quick: {image: 6}", 14, "there is no `quick`"),
        ("price_changes:\n- effective_from: 2026-12-01\n  operations:\n    quick: {min: 6}", 14, "there is no `quick`"),
        ("price_changes:\n- effective_from: 2026-12-01\n  models:\n    fast: {image: -6}", 14, "negative"),
        ("price_changes:\n- effective_from: 2026-12-01\n  models:\n    fast: {output_tokens: ~}", 6, "output_tokens"),
        (
            "price_changes:\n- effective_from: 2026-12-01\n  operations:\n    edit: {title: No}",
            14,
            "unknown key `title`",
        ),
        ("price_changes:\n- effective_from: 2026-12-01\n  operations:\n    edit: {min: 9}", 14, "above `max`"),
        ("price_changes:\n- effective_from: 2026-12-01\n  surcharges: {input_tokens: 1}", 13, "what every call has"),
    ],
)
def test_what_can_not_come_about_is_refused(more: str, line: int, problem: str) -> None:
    """With its line, long before its time."""
    refused = _refused(more)
    assert problem in refused.problem
    assert refused.line == line


def _doubtful(price: str, upstream: str = "main/gpt-4.1-mini") -> str:
    return _CONFIG.replace("[own/two, main/gpt-4.1]", upstream).replace("{request: 9}", price)


def test_a_doubtful_price_has_to_be_meant() -> None:
    """Below what the provider takes, or a thousand times it: refused with its line, unless the meter is named."""
    refused = _refused(text=_doubtful("{input_tokens: 40 / 1k, output_tokens: 200 / 1M}"))
    assert refused.line == 7
    assert "is its unit right? Mend it, or write `i_mean_it: [input_tokens]` beside it" in refused.problem
    below = "{input_tokens: 39 / 1M, output_tokens: 200 / 1M"
    assert "sold below cost" in _refused(text=_doubtful(below + "}")).problem
    assert _refused(text=_doubtful(below + ", i_mean_it: [output_tokens]}")).line == 7
    meant = _parsed(text=_doubtful(below + ", i_mean_it: [input_tokens]}"))
    # It is no part of the price.
    assert meant.table.version == _parsed(text=_doubtful(below + ", i_mean_it: true}")).table.version
    assert _parsed(text=_doubtful("{cost_plus: 0%}")).warnings == ()


def test_only_a_known_cost_makes_a_price_doubtful() -> None:
    """A host that is nobody's may run anything under any name, for nothing."""
    assert _parsed(text=_doubtful("{input_tokens: 0, output_tokens: 0}", "own/gpt-4.1-mini"))
    written = "own/mine, cost: {input_tokens: $1 / 1M, output_tokens: $1 / 1M}"
    assert "nothing" in _refused(text=_doubtful("{input_tokens: 0, output_tokens: 100 / 1M}", written)).problem


def test_a_change_to_come_has_to_be_meant_too() -> None:
    """It is refused when it is written, not when it comes."""
    text = _doubtful("{input_tokens: 60 / 1M, output_tokens: 200 / 1M}")
    change = "price_changes:\n- effective_from: 2026-12-01\n  models:\n    smart: {{input_tokens: {}}}\n"
    assert "sold below cost" in _refused(change.format("6 / 1M"), text).problem
    assert _parsed(change.format("61 / 1M"), text)
    assert _parsed(change.format("6 / 1M, i_mean_it: true"), text)


def test_a_fallbacks_own_price_has_to_be_meant_too() -> None:
    """Where it is written."""
    own = "[own/two, {upstream: main/gpt-4.1-mini, price: {input_tokens: 1 / 1M, output_tokens: 200 / 1M}}]"
    assert "sold below cost" in _refused(text=_doubtful("{request: 9}", own)).problem


def test_a_draft_may_be_tried_with_doubtful_prices() -> None:
    """They are warned of."""
    text = _doubtful("{input_tokens: 39 / 1M, output_tokens: 200 / 1M}")
    config = parse_config(text, "new.yaml", {}, strict=False)
    assert any("sold below cost" in warning for warning in config.warnings)


def test_many_changes_of_a_few_models_read_the_others_once() -> None:
    """What no change names is the very same model in all of them."""
    changes = [
        f"- {{effective_from: 2026-12-{day:02}, models: {{fast: {{image: {100 + day}}}}}}}" for day in range(1, 20)
    ]
    config = _parsed("price_changes:\n" + "\n".join(changes))
    sold = list(config.sold.values())
    assert len(sold) == 20
    assert all(each.models["smart"].price is sold[0].models["smart"].price for each in sold)


def test_operations_that_sell_below_cost_are_warned_of() -> None:
    """By name, with the model and the meter; they may be meant, as a kind of call."""
    text = _doubtful("{cost_plus: 25%}").replace("edit: {", "cheap: {multiply: 0.6}\n  edit: {")
    said = [warning for warning in _parsed(text=text).warnings if warning.startswith("operation cheap: of smart")]
    assert len(said) >= 3
    assert any("output_tokens: `200 / 1M × 0.6` is $1.2 a million" in warning for warning in said)
    assert not [
        warning for warning in _parsed(text=text.replace("0.6", "0.9")).warnings if "operation cheap" in warning
    ]

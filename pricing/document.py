"""The operator's YAML file as nodes that know their line, so that every refusal can name it.

PyYAML's own constructor keeps the last of two equal keys and turns prices into floats; reading its node tree
keeps each scalar's text and shows the duplicate.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

import yaml

from pricing.errors import ConfigError

__all__ = ["Document", "Node", "without_variables"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_DECIMAL = re.compile(r"\d{1,18}(\.\d{1,18})?", re.ASCII)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DEPTH = 24


def without_variables(text: str) -> str:
    """Put defaults for all `${NAME:-default}`, and `unset` for all `${NAME}`: a text from elsewhere reads none here."""
    return _VARIABLE.sub(lambda match: "unset" if match[2] is None else match[2], text)


@dataclass(frozen=True, slots=True)
class Document:
    """One file's text and the environment that its `${NAME}` read."""

    file: str
    text: str
    environment: Mapping[str, str]

    def root(self) -> Node:
        """Parse the file; raises ConfigError on anything that is not one YAML mapping."""
        strange = _UNPRINTABLE.search(self.text)
        if strange is not None:
            line = self.text.count("\n", 0, strange.start()) + 1
            raise ConfigError(self.file, line, f"the character {strange[0]!r} is not allowed in YAML; remove it")
        try:
            # The loader in C is quicker, but deep nesting overflows its stack and takes the process down.
            node = yaml.compose(self.text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise ConfigError(
                self.file, line, f"not valid YAML: {error.problem or error.context}; fix the syntax here"
            ) from None
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(self.file, 1, f"not valid YAML: {str(error).splitlines()[0]}; fix the syntax") from None
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(self.file, 1, "the file must be a mapping with at least `upstreams:` and `models:`")
        return Node(self, node, "")


class Node:
    """One value of the file; its readers return plain values or raise ConfigError with the line and the fix."""

    __slots__ = ("_depth", "_document", "_key_line", "_node", "path")

    def __init__(
        self, document: Document, node: yaml.Node, path: str, depth: int = 0, key_line: int | None = None
    ) -> None:
        self._document = document
        self._key_line = key_line
        self._node = node
        self.path = path
        self._depth = depth

    @property
    def line(self) -> int:
        """Where it stands: of a list or mapping under a key, the key's line."""
        if self._key_line is not None and not isinstance(self._node, yaml.ScalarNode):
            return self._key_line
        return int(self._node.start_mark.line) + 1

    def error(self, problem: str) -> ConfigError:
        """Make the refusal of this node; `problem` says what is wrong and how to mend it."""
        return ConfigError(self._document.file, self.line, f"{self.path}: {problem}" if self.path else problem)

    def key_error(self, problem: str) -> ConfigError:
        """Make the refusal of this node's key, on the key's own line."""
        error = self.error(problem)
        line = self.line if self._key_line is None else self._key_line
        return ConfigError(error.file, line, error.problem)

    def _child(self, node: yaml.Node, path: str, key_line: int | None = None) -> Node:
        if self._depth >= _DEPTH:
            raise self.error("nested too deeply, or refers to itself; write it out flat")
        return Node(self._document, node, path, self._depth + 1, key_line)

    @property
    def identity(self) -> int:
        """A number of this value alone, for as long as any node of it is kept."""
        return id(self._node)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self._node, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        return isinstance(self._node, yaml.SequenceNode)

    @property
    def is_null(self) -> bool:
        return isinstance(self._node, yaml.ScalarNode) and self._node.tag == "tag:yaml.org,2002:null"

    def members(self) -> dict[str, Node]:
        """Read a mapping with free keys, in file order."""
        if not isinstance(self._node, yaml.MappingNode):
            raise self.error("must be a mapping (`key: value`)")
        found: dict[str, Node] = {}
        for key, value in self._node.value:
            place = self._child(key, self.path)
            if not isinstance(key, yaml.ScalarNode):
                raise place.error("a key must be a plain name")
            name = str(key.value)
            line = int(key.start_mark.line) + 1
            child = self._child(value, f"{self.path}.{name}" if self.path else name, line)
            if name == "<<":
                raise place.error("merge keys (`<<`) are not supported; write the members out")
            if name in found:
                raise place.error(f"`{name}` stands here twice (first on line {found[name].line}); remove one")
            found[name] = child
        return found

    def overlaid(self, over: Node) -> Node:
        """This mapping with another's members in place of its own; what is null there is left out."""
        names = over.members()
        self.members()
        assert isinstance(self._node, yaml.MappingNode)
        assert isinstance(over._node, yaml.MappingNode)
        kept = [pair for pair in self._node.value if pair[0].value not in names]
        added = [pair for pair in over._node.value if not names[str(pair[0].value)].is_null]
        return over._with(kept + added)

    def replacing(self, name: str, by: Node) -> Node:
        """This mapping with another value for one of its keys."""
        assert isinstance(self._node, yaml.MappingNode)
        return self._with([(key, by._node if key.value == name else value) for key, value in self._node.value])

    def _with(self, pairs: list[tuple[yaml.Node, yaml.Node]]) -> Node:
        node = yaml.MappingNode(self._node.tag, pairs, self._node.start_mark, self._node.end_mark)
        return Node(self._document, node, self.path, self._depth, self._key_line)

    def fields(self, known: Iterable[str], later: Iterable[str] = ()) -> dict[str, Node]:
        """Read a mapping whose keys are given.

        known: the keys that this release reads. later: keys of the format that it does not read yet; they are
        refused by name, because ignoring one would sell something on terms nobody applies.
        """
        names = list(known)
        found = self.members()
        for name, child in found.items():
            if name in later:
                raise child.key_error(f"`{name}` is not supported by this release; remove it")
            if name not in names:
                # What is there already was not meant.
                near = difflib.get_close_matches(name, [other for other in names if other not in found], 1)
                hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(names)}"
                raise child.key_error(f"unknown key `{name}`; {hint}")
        return found

    def items(self) -> list[Node]:
        """Read a list."""
        if not isinstance(self._node, yaml.SequenceNode):
            raise self.error("must be a list (`[a, b]`)")
        return [self._child(item, f"{self.path}[{index}]") for index, item in enumerate(self._node.value)]

    def text(self, *, empty: bool = False) -> str:
        """Read a scalar as written, with `${NAME}` and `${NAME:-default}` replaced from the environment."""
        if not isinstance(self._node, yaml.ScalarNode):
            raise self.error("must be a single value, not a list or mapping")
        if self.is_null and not self._node.value:
            raise self.error("has no value; write one, or remove the key")
        value = _VARIABLE.sub(self._variable, str(self._node.value)).strip()
        if not value and not empty:
            raise self.error("is empty; write a value, or remove the key")
        return value

    def _variable(self, match: re.Match[str]) -> str:
        name, default = match.groups()
        value = self._document.environment.get(name)
        # As in the shell, `:-` also covers a variable that is set to nothing.
        if value is None or (value == "" and default is not None):
            if default is None:
                raise self.error(f"the environment has no {name}; set it, or write ${{{name}:-default}}")
            return str(default)
        return value

    def integer(self, least: int, most: int) -> int:
        """Read a whole number within bounds."""
        text = self.text().replace("_", "")
        if not re.fullmatch(r"-?\d{1,18}", text, re.ASCII) or not least <= int(text) <= most:
            raise self.error(f"must be a whole number from {least} to {most}, not `{text[:40]}`")
        return int(text)

    def decimal(self) -> Decimal:
        """Read a plain decimal number ≥ 0, exactly."""
        text = self.text().replace("_", "")
        if text.startswith("-"):
            raise self.error(f"`{text[:40]}` is negative; use 0 or more")
        if not _DECIMAL.fullmatch(text):
            raise self.error(f"must be a plain decimal number such as 0.01, not `{text[:40]}`")
        return Decimal(text)

    def boolean(self) -> bool:
        text = self.text().lower()
        if text not in ("true", "false"):
            raise self.error(f"must be true or false, not `{text[:40]}`")
        return text == "true"

    def choice(self, options: Iterable[str]) -> str:
        names = list(options)
        text = self.text()
        if text not in names:
            raise self.error(f"must be one of {', '.join(names)}, not `{text[:40]}`")
        return text

    def seconds(self) -> float:
        """Read a duration such as `5s`, `500ms`, `10m`, in seconds."""
        text = self.text()
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)", text, re.ASCII)
        if match is None or not float(match[1]):
            raise self.error(f"must be a duration such as 5s, 500ms or 10m, not `{text[:40]}`")
        return float(match[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]

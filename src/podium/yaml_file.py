"""Owns reading a YAML file that a person edits: safely, with the line of every key, all faults at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from podium.errors import Fault, InvalidInput

Model = TypeVar("Model", bound=BaseModel)
ONE, SEVERAL = "<one>", "<several>"  # tags of a union of a thing and a list of such things
LARGEST_FILE_BYTES = 1_000_000
DEEPEST_NESTING = 50


# What PyYAML raises besides on a tag whose value is none of its kind, such as an empty !!timestamp.
_OF_TAGGED_VALUES = (AttributeError, TypeError, LookupError)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number (YAML 1.2) and refuses aliases and repeated keys."""

    def _mark(self) -> yaml.Mark:
        mark: yaml.Mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return mark

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node. Raises: MarkedYAMLError on an alias or too deep a nesting."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not allowed here", problem_mark=self._mark()
            )
        self._depth = getattr(self, "_depth", 0) + 1
        if self._depth > DEEPEST_NESTING:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {DEEPEST_NESTING} levels",
                problem_mark=self._mark(),
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^[-+]?(?:(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[0-9][0-9_]*[eE][-+]?[0-9]+
        |\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
        |\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A YAML mapping with the line (from 1) of each dotted key."""

    content: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)
    file: str | None = None

    def fault(self, key: str, message: str, *, got: object = None, allowed: str | None = None) -> Fault:
        """A fault at `key`, with the line of the key or of its nearest parent that the file has."""
        place = key
        while place and place not in self.lines:
            place = place.rpartition(".")[0]
        return Fault(
            message=message, key=key, got=got, allowed=allowed, file=self.file, line=self.lines.get(place)
        )


def read_document(path: Path) -> Document:
    """Read a YAML mapping. Raises: InvalidInput if the file is missing, too large, or not a YAML mapping."""
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise InvalidInput(f"{path} is larger than {LARGEST_FILE_BYTES:,} bytes: not a settings file.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = sorted(path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        names = ", ".join(str(other) for other in near) or "none in that folder"
        raise InvalidInput(f"no file {path}.", remedy=f"YAML files there: {names}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    return parse_document(text, file=str(path))


def parse_document(text: str, *, file: str | None = None) -> Document:
    """Parse YAML text into a Document. Raises: InvalidInput with file and line."""
    loader = _Loader(text) if _printable(text, file) else None
    assert loader is not None
    try:
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        faults: list[Fault] = []
        _collect_lines(node, "", lines, faults, file)
        if faults:
            raise InvalidInput(f"{file or 'YAML'} cannot be read.", faults=faults)
        content = loader.construct_document(node) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fault = Fault(
            message=f"not valid YAML: {error.problem or error.context}",
            file=file,
            line=mark.line + 1 if mark else None,
        )
        raise InvalidInput(f"{file or 'YAML'} cannot be read.", faults=[fault]) from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, *_OF_TAGGED_VALUES) as error:
        fault = Fault(message=f"not valid YAML: {error}", file=file)
        raise InvalidInput(f"{file or 'YAML'} cannot be read.", faults=[fault]) from error
    finally:
        loader.dispose()
    if not isinstance(content, dict):
        fault = Fault(message="must be a mapping of keys to values", got=type(content).__name__, file=file)
        raise InvalidInput(f"{file or 'YAML'} cannot be read.", faults=[fault])
    return Document(content=content, lines=lines, file=file)


def parse_value(text: str) -> Any:
    """A single YAML value, as typed after `key=` on a command line. Raises: InvalidInput."""
    return parse_document(f"value: {text}", file=f"'{text}'").content["value"]


def validated(model: type[Model], document: Document, *, prefix: str = "") -> Model:
    """Build a model from a document. Raises: InvalidInput with one Fault for each wrong key."""
    try:
        return model.model_validate(document.content)
    except ValidationError as error:
        raise InvalidInput(
            f"{document.file or model.__name__} has {error.error_count()} "
            f"fault{'s' if error.error_count() > 1 else ''}.",
            faults=[_fault(detail, document, model, prefix) for detail in error.errors()],
        ) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """'did you mean' text for an unknown word, empty if nothing is near."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def _printable(text: str, file: str | None) -> bool:
    try:
        yaml.reader.Reader(text)
    except yaml.reader.ReaderError as error:
        fault = Fault(message=f"not text: {error.reason}", file=file)
        raise InvalidInput(f"{file or 'YAML'} cannot be read.", faults=[fault]) from error
    return True


def _collect_lines(
    node: yaml.Node | None, prefix: str, lines: dict[str, int], faults: list[Fault], file: str | None
) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            key = f"{prefix}.{index}" if prefix else str(index)
            lines[key] = item.start_mark.line + 1
            _collect_lines(item, key, lines, faults, file)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key_node, value_node in node.value:
        name = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        key = f"{prefix}.{name}" if prefix else name
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or name == "<<":
            faults.append(Fault(message="a key must be a plain word", file=file, line=line))
            continue
        if name in seen:
            faults.append(Fault(message="given twice", key=key, file=file, line=line))
        seen.add(name)
        lines[key] = line
        _collect_lines(value_node, key, lines, faults, file)


def _fault(detail: Mapping[str, Any], document: Document, model: type[BaseModel], prefix: str) -> Fault:
    # A location also holds the tag of a union's member, which is no key of the file.
    parts = [str(part) for part in detail["loc"]]
    key = ".".join(part for i, part in enumerate(parts) if i == 0 or not _is_tag(parts[:i], part, document))
    context = detail.get("ctx") or {}
    got: object = detail.get("input")
    message = str(detail["msg"]).removeprefix("Value error, ")
    allowed = None
    if detail["type"] == "extra_forbidden":
        known = _keys_at(model, parts[:-1])
        message = f"unknown key.{nearest(parts[-1], known)}"
        allowed, got = ", ".join(sorted(known)) or None, parts[-1]
    elif detail["type"] == "missing":
        message, got = "is missing", None
    elif detail["type"] == "union_tag_invalid":  # the word that tells kinds apart is none of theirs
        key, got, allowed = _told_apart_by(key, context), context["tag"], str(context["expected_tags"])
        words = [word.strip(" '") for word in allowed.split(",")]
        message = f"got {got!r}.{nearest(str(got), words)}"
    elif detail["type"] == "union_tag_not_found":
        key, message, got = _told_apart_by(key, context), "is missing", None
    elif "expected" in context:
        allowed = str(context["expected"])
    if detail["type"] not in (
        "extra_forbidden",
        "missing",
        "value_error",
        "union_tag_invalid",
        "union_tag_not_found",
    ):
        message = f"got {got!r}. {message}."
    return document.fault(prefix + key, message, got=_plain(got), allowed=allowed)


def _told_apart_by(key: str, context: Mapping[str, Any]) -> str:
    return f"{key}.{str(context['discriminator']).strip(chr(39))}"


def _is_tag(before: list[str], part: str, document: Document) -> bool:
    if part in (ONE, SEVERAL):
        return True
    here: Any = document.content
    for step in before:
        if isinstance(here, dict) and step in here:
            here = here[step]
        elif isinstance(here, list) and step.isdigit() and int(step) < len(here):
            here = here[int(step)]
    is_key = isinstance(here, dict) and (
        part in here or (here.get("type") != part and here.get("name") != part)
    )
    is_index = isinstance(here, list) and part.isdigit()
    return not (is_key or is_index)


def _keys_at(model: type[BaseModel], path: list[str]) -> set[str]:
    candidates = [model]
    for step in path:
        inner = [
            found
            for candidate in candidates
            if step in candidate.model_fields
            for found in _models_in(candidate.model_fields[step].annotation)
        ]
        # A step that is no field is a key of a mapping, an index, or the tag of a union's member.
        tagged = [candidate for candidate in candidates if step in _tags(candidate)]
        candidates = list(dict.fromkeys(inner or tagged or candidates))
    return set(candidates[0].model_fields) if len(candidates) == 1 else set()


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    fields = (model.model_fields.get(name) for name in ("type", "name"))
    return tuple(tag for field in fields if field is not None for tag in get_args(field.annotation))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[type[BaseModel]] = []
    for argument in getattr(annotation, "__args__", ()):
        found += _models_in(argument)
    return found


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str | None) else repr(value)[:200]

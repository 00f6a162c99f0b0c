"""JSON in texts that a policy wrote: read strictly, and checked against a schema."""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

import jsonschema
import jsonschema.validators
import referencing
import referencing.exceptions
from referencing.jsonschema import DRAFT202012

from plumbob.configs.settings.rules.reward_rules import JsonRule
from plumbob.core.errors import UserError
from plumbob.core.outside import reason_of
from plumbob.reward.rules.rule import NotScored

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL | re.IGNORECASE)


def parsed(text: str) -> Any:
    """The value of a text that is JSON and nothing else, but for white space or one fence (```json) around it.

    Raises:
        ValueError: it is not: a NaN, an infinity, or lists nested deeper than Python reads are none either.
    """
    fenced = _FENCED.fullmatch(text.strip())
    try:
        return json.loads(fenced[1] if fenced else text, parse_constant=_refused)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def is_json_alone(text: str) -> bool:
    """Whether it is an object or a list of JSON and nothing else."""
    try:
        return isinstance(parsed(text), dict | list)
    except ValueError:
        return False


class SchemaCheck:
    """Texts checked against the schema of a rule.

    Raises:
        UserError: the schema is none, or refers to what does not stand in it.
    """

    def __init__(self, rule: JsonRule) -> None:
        self._validator = None if rule.json_schema is None else _validator(rule, rule.json_schema)

    def is_kept(self, text: str) -> bool:
        """Whether the text is JSON that fulfils it. Raises NotScored where that cannot be told."""
        try:
            value = parsed(text)
        except ValueError:
            return False
        try:
            return self._validator is None or bool(self._validator.is_valid(value))
        except RecursionError as error:
            raise NotScored(f"the schema: {reason_of(error)}") from error


def json_value(rule: JsonRule) -> Callable[[str, None], float]:
    """Text -> 1 where the rule is kept, else 0. UserError as `SchemaCheck`."""
    check = SchemaCheck(rule)
    return lambda text, _: float(check.is_kept(text))


def _validator(rule: JsonRule, schema: dict[str, Any]) -> Any:
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    what = f"reward.parts: {rule.label}: json_schema"
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise UserError(f"{what} is no JSON Schema: at {error.json_path}: {reason_of(error)}") from error
    within = referencing.Resource.from_contents(schema, DRAFT202012)
    resolver = referencing.Registry().with_resource("", within).resolver()
    for name in _references(schema):
        try:
            resolver.lookup(name)
        except referencing.exceptions.Unresolvable:
            raise UserError(
                f"{what} refers to {name!r}, which does not stand in it: put that below $defs, and name it #/$defs/NAME"
            ) from None
    # An empty registry, or it would fetch what it does not know.
    return kind(schema, registry=referencing.Registry())


def _references(schema: Any) -> list[str]:
    below = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    own = [schema["$ref"]] if isinstance(schema, dict) and isinstance(schema.get("$ref"), str) else []
    return own + [name for part in below for name in _references(part)]


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")

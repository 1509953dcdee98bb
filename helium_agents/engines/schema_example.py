"""An example value for a JSON schema, chosen by a seed: what a scripted model answers."""

from __future__ import annotations

import json
import random
from typing import Any


def example_json(schema: str, seed: str) -> str:
    """JSON text that satisfies a schema as pydantic writes them; equal seeds give equal text.

    Args:
        schema: JSON schema text. Objects, arrays, enums, constants, unions, references, and
            the bounds on lengths and numbers are understood; patterns and formats are not.
        seed: Decides among alternatives.
    """
    root = json.loads(schema)
    return json.dumps(_example(root, root.get("$defs", {}), random.Random(seed), depth=0))


def _example(schema: dict[str, Any], defs: dict[str, Any], rng: random.Random, depth: int) -> Any:
    if "$ref" in schema:
        return _example(defs[schema["$ref"].rpartition("/")[2]], defs, rng, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:  # deep down take the last, which ends recursive types (`X | None`)
            options = schema[union]
            option = options[-1] if depth > 4 else rng.choice(options)
            return _example(option, defs, rng, depth + 1)
    if "allOf" in schema:
        return _example(schema["allOf"][0], defs, rng, depth + 1)
    return _of_type(schema, defs, rng, depth)


def _of_type(schema: dict[str, Any], defs: dict[str, Any], rng: random.Random, depth: int) -> Any:
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            return {name: _example(field, defs, rng, depth + 1) for name, field in fields.items()}
        case "array":
            items = schema.get("prefixItems")
            if items is not None:
                return [_example(item, defs, rng, depth + 1) for item in items]
            length = max(schema.get("minItems", 0), 0 if depth > 4 else 1)
            length = min(length, schema.get("maxItems", length))
            return [_example(schema.get("items", {}), defs, rng, depth + 1) for _ in range(length)]
        case "integer":
            low, high = _bounds(schema, margin=1, default_low=1, default_width=100)
            return rng.randint(low, high)
        case "number":
            low, high = _bounds(schema, margin=0, default_low=0, default_width=1)
            return round(low + (high - low) * rng.uniform(0.25, 0.75), 3)
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
    word = f"{rng.getrandbits(32):08x}"
    length = max(schema.get("minLength", 0), min(8, schema.get("maxLength", 8)))
    return (word * (length // 8 + 1))[:length]


def _bounds(
    schema: dict[str, Any], *, margin: int, default_low: int, default_width: int
) -> tuple[Any, Any]:
    """The least and the greatest number; exclusive bounds are moved in by `margin`."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + margin
    if high is None and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - margin
    if low is None:
        low = default_low if high is None or high >= default_low else high - default_width
    return low, low + default_width if high is None else high

"""KubeRay's own schemas of a RayJob, as strict as an API server that refuses unknown fields.

They are data: kuberay_schemas/*.json.gz, each with the version, the commit and the file that it was taken from, without
descriptions. 1.5.2 has the schema of 1.5.1, and 1.6.0 and 1.6.1 that of 1.6.2. Another version is added from a checkout
of github.com/ray-project/kuberay::

    git show v1.7.0:helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml >crd.yaml
    python -m tests.support.kuberay_schemas crd.yaml v1.7.0 $(git rev-parse v1.7.0^{commit})
"""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

FOLDER = Path(__file__).parent / "kuberay_schemas"
SOURCE = "https://github.com/ray-project/kuberay, helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml"

OBJECT_META = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("name", "namespace", "generateName")}
    | {name: {"type": "object", "additionalProperties": {"type": "string"}} for name in ("labels", "annotations")},
}
"""What the API server itself knows of a RayJob's metadata; the schema says that it is an object."""

VERSIONS = tuple(sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz")))


def schema_of(version: str) -> dict[str, Any]:
    """The schema of `ray.io/v1`, closed: an object has the fields that are published and no others."""
    stored = json.loads(gzip.decompress((FOLDER / f"{version}.json.gz").read_bytes()))
    assert stored["version"] == version and stored["source"] == SOURCE
    stored["schema"]["properties"]["metadata"] = OBJECT_META
    return dict(_closed(stored["schema"]))


def errors_of(document: Any, schema: dict[str, Any]) -> list[str]:
    """`spec.entrypoint: 1 is not of type 'string'`, one for each thing that the API server would refuse."""
    found = _Validator(schema).iter_errors(document)
    return sorted(f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found)


def _closed(node: Any) -> Any:
    match node:
        case {"type": "object", **rest} if "additionalProperties" not in rest:
            fields = {name: _closed(field) for name, field in node.get("properties", {}).items()}
            return node | {"properties": fields, "additionalProperties": False}
        case dict():
            return {name: _closed(inner) for name, inner in node.items()}
        case list():
            return [_closed(inner) for inner in node]
        case _:
            return node


def _has_range(_: Any, name: str, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    bits = {"int32": 31, "int64": 63}.get(name)
    if bits is not None and isinstance(value, int) and not -(2**bits) <= value < 2**bits:
        yield jsonschema.ValidationError(f"{value} is no {name}")


def _are_distinct(_: Any, keys: list[str], items: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    names = [tuple(item.get(key) for key in keys) for item in items]
    if len(set(names)) < len(names):
        yield jsonschema.ValidationError(f"two items have the same {', '.join(keys)}")


_Validator = jsonschema.validators.extend(
    jsonschema.Draft7Validator, {"format": _has_range, "x-kubernetes-list-map-keys": _are_distinct}
)


def _without_descriptions(node: Any) -> Any:
    match node:
        case dict():
            return {
                name: _without_descriptions(inner)
                for name, inner in node.items()
                if not (name == "description" and isinstance(inner, str))
            }
        case list():
            return [_without_descriptions(inner) for inner in node]
        case _:
            return node


def _store(crd: Path, version: str, commit: str) -> None:
    versions = yaml.safe_load(crd.read_text())["spec"]["versions"]
    schema = next(one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1")
    stored = {"source": SOURCE, "version": version, "commit": commit, "schema": _without_descriptions(schema)}
    text = json.dumps(stored, separators=(",", ":"), sort_keys=True)
    (FOLDER / f"{version}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    _store(Path(sys.argv[1]), *sys.argv[2:])

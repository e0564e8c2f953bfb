"""The contract itself is in order, and contract.py finds what is not as promised."""
import os
import re

import pytest

import contract
from harness import ROOT, Answer

yaml = pytest.importorskip("yaml")

with open(os.path.join(ROOT, "proto", "openapi.yaml"), encoding="utf-8") as file:
    DOCUMENT = yaml.safe_load(file)


def walk(value, place="#"):
    yield place, value
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from walk(inner, f"{place}/{key}")


def operations():
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield method, path, operation


def test_references_lead_somewhere():
    for place, value in walk(DOCUMENT):
        if isinstance(value, dict) and "$ref" in value:
            assert contract.resolve(DOCUMENT, value["$ref"]) is not None, place


def test_components_are_used():
    used = {value["$ref"] for _, value in walk(DOCUMENT) if isinstance(value, dict) and "$ref" in value}
    for kind in ("schemas", "headers", "parameters", "responses"):
        for name in DOCUMENT["components"][kind]:
            assert f"#/components/{kind}/{name}" in used, name


def check_keywords(schema, place):
    unknown = set(schema) - set(contract.RULES) - contract.ANNOTATIONS
    assert not unknown, (place, unknown)
    inner = list(schema.get("properties", {}).items()) + list(enumerate(schema.get("oneOf", [])))
    inner += [(name, schema[name]) for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    for name, value in inner:
        check_keywords(value, f"{place}/{name}")


def test_schemas_use_known_keywords():
    for name, schema in DOCUMENT["components"]["schemas"].items():
        check_keywords(schema, name)


def test_operations():
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names) and all(name.isidentifier() for name in names)
    for method, path, operation in operations():
        _, parameters = contract.find_operation(DOCUMENT, method.upper(), path)
        assert [value["name"] for value in parameters if value["in"] == "path"] == re.findall("{([a-z]+)}", path)
        assert operation["summary"] and any(status.startswith("2") for status in operation["responses"])


@pytest.mark.parametrize("path,found", [
    ("/v1/jobs/0123", "get_job"), ("/v1/jobs", "list_jobs"), ("/v1/jobs/0123/mask.png", "job_mask_png"),
    ("/v1/jobs/0123/maskXpng", None), ("/v1/jobs/", None), ("/v1/jobs/a/b", None), ("/v1/sweeps/a", "get_sweep"),
])
def test_templates(path, found):
    operation, _ = contract.find_operation(DOCUMENT, "GET", path)
    assert (operation and operation["operationId"]) == found


HEADERS = {"Vampd-Request-Id": "0123456789abcdef01234567", "Content-Type": "application/json"}
READY = b'{"status": "ready", "jobs": 0}'


@pytest.mark.parametrize("method,path,answer", [
    ("GET", "/readyz", Answer(200, HEADERS, b'{"status": "ready"}')),
    ("GET", "/readyz", Answer(200, HEADERS, b'{"status": "ready", "jobs": 0, "more": 1}')),
    ("GET", "/readyz", Answer(200, HEADERS, b'{"status": "ready", "jobs": -1}')),
    ("GET", "/readyz", Answer(200, {**HEADERS, "Content-Type": "text/html"}, READY)),
    ("GET", "/readyz", Answer(200, {"Content-Type": "application/json"}, READY)),
    ("GET", "/readyz", Answer(418, HEADERS, READY)),
    ("GET", "/readyz?x=1", Answer(200, HEADERS, READY)),
    ("GET", "/v1/jobs?limit=0", Answer(200, HEADERS, b'{"jobs": []}')),
    ("GET", "/v1/jobs?limit=x", Answer(200, HEADERS, b'{"jobs": []}')),
    ("GET", "/nowhere", Answer(200, HEADERS, READY)),
    ("DELETE", "/v1/jobs/0123", Answer(204, HEADERS, b"x")),
])
def test_what_is_not_as_promised_is_found(method, path, answer):
    with pytest.raises(AssertionError):
        contract.check_answer(DOCUMENT, method, path, answer)


def test_what_is_as_promised_passes():
    contract.check_answer(DOCUMENT, "GET", "/readyz", Answer(200, HEADERS, READY))
    contract.check_answer(DOCUMENT, "GET", "/v1/jobs?limit=5", Answer(200, HEADERS, b'{"jobs": []}'))
    contract.check_answer(DOCUMENT, "DELETE", "/v1/jobs/0123", Answer(204, HEADERS, b""))

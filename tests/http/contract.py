"""Checks a value against a schema of the contract (OpenAPI 3.1, which is JSON Schema 2020-12): the keywords that
proto/openapi.yaml uses, and an error for any other, so that none is silently ignored."""
import re

ANNOTATIONS = {"description", "default", "contentEncoding", "contentMediaType"}
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def is_type(value, name):
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool) or isinstance(value, float) and value.is_integer()
    return isinstance(value, TYPES[name])


def resolve(document, reference):
    assert reference.startswith("#/")
    for part in reference[2:].split("/"):
        document = document[part]
    return document


def check(document, schema, value, place="$"):
    for keyword, argument in schema.items():
        if keyword in ANNOTATIONS:
            continue
        rule = RULES.get(keyword)
        assert rule, f"the contract uses {keyword}, which contract.py does not know"
        rule(document, schema, argument, value, place)


def check_type(document, schema, names, value, place):
    names = names if isinstance(names, list) else [names]
    assert any(is_type(value, name) for name in names), f"{place}: {value!r:.80} is not {names}"


def check_properties(document, schema, properties, value, place):
    for name, inner in properties.items():
        if isinstance(value, dict) and name in value:
            check(document, inner, value[name], f"{place}.{name}")


def check_additional(document, schema, allowed, value, place):
    assert allowed is False
    if isinstance(value, dict):
        unknown = set(value) - set(schema["properties"])
        assert not unknown, f"{place}: {unknown} are not in the contract"


def check_required(document, schema, names, value, place):
    missing = set(names) - set(value)
    assert not missing, f"{place}: {missing} are missing"


def check_items(document, schema, inner, value, place):
    for index, item in enumerate(value):
        check(document, inner, item, f"{place}[{index}]")


def check_one_of(document, schema, choices, value, place):
    def fits(choice):
        try:
            check(document, choice, value, place)
        except AssertionError:
            return False
        return True
    assert sum(map(fits, choices)) == 1, f"{place}: {value!r:.80} is not exactly one of {choices}"


def number_rule(holds):
    def rule(document, schema, bound, value, place):
        if is_type(value, "number"):
            assert holds(value, bound), f"{place}: {value} against the bound {bound}"
    return rule


def size_rule(holds):
    def rule(document, schema, bound, value, place):
        assert holds(len(value), bound), f"{place}: size {len(value)} against the bound {bound}"
    return rule


def check_pattern(document, schema, pattern, value, place):
    assert re.search(pattern, value), f"{place}: {value!r:.80} does not match {pattern}"


def check_const(document, schema, const, value, place):
    assert value == const, f"{place}: {value!r} is not {const!r}"


def check_enum(document, schema, values, value, place):
    assert value in values, f"{place}: {value!r} is not one of {values}"


def check_reference(document, schema, reference, value, place):
    check(document, resolve(document, reference), value, place)


RULES = {
    "$ref": check_reference, "type": check_type, "properties": check_properties, "required": check_required,
    "additionalProperties": check_additional, "items": check_items, "oneOf": check_one_of, "enum": check_enum,
    "const": check_const, "pattern": check_pattern,
    "minimum": number_rule(lambda value, bound: value >= bound),
    "maximum": number_rule(lambda value, bound: value <= bound),
    "minItems": size_rule(lambda size, bound: size >= bound), "maxItems": size_rule(lambda size, bound: size <= bound),
    "minLength": size_rule(lambda size, bound: size >= bound),
    "maxLength": size_rule(lambda size, bound: size <= bound),
}


def check_answer(document, method, path, answer):
    """An answer of the daemon against what the contract promises for it. A method or a path that is not in the
    contract must be answered with a problem."""
    media_type = answer.headers.get("Content-Type")
    operation = document["paths"].get(path, {}).get("get" if method == "HEAD" else method.lower())
    if operation is None:
        assert answer.status in (404, 405) and media_type == "application/problem+json"
        check(document, {"$ref": "#/components/schemas/Problem"}, answer.json())
        return
    promised = operation["responses"].get(str(answer.status))
    assert promised, f"{method} {path} answered {answer.status}, which is not in the contract"
    for name, header in promised.get("headers", {}).items():
        if "$ref" in header:
            header = resolve(document, header["$ref"])
        value = answer.headers.get(name)
        assert value is not None, f"{method} {path} answered {answer.status} without {name}"
        schema = header["schema"]
        check(document, schema, float(value) if schema["type"] in ("number", "integer") else value, name)
    assert media_type in promised["content"], f"{method} {path} answered with {media_type}"
    schema = promised["content"][media_type].get("schema")
    if schema and method != "HEAD":
        check(document, schema, answer.json())

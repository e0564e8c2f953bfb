"""Checks a value against a schema of the contract (OpenAPI 3.1, which is JSON Schema 2020-12): the keywords that
proto/openapi.yaml uses, and an error for any other, so that none is silently ignored. And an answer of the daemon
against all that is promised of it: status, headers, media type, body."""
import functools
import re
import urllib.parse

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
    unknown = set(value) - set(schema.get("properties", {})) if isinstance(value, dict) else set()
    if allowed is False:
        assert not unknown, f"{place}: {unknown} are not in the contract"
        return
    for name in unknown:
        check(document, allowed, value[name], f"{place}.{name}")


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
    "minProperties": size_rule(lambda size, bound: size >= bound),
    "minLength": size_rule(lambda size, bound: size >= bound),
    "maxLength": size_rule(lambda size, bound: size <= bound),
}


@functools.lru_cache
def template_pattern(template):
    parts = re.split(r"[{][a-z]+[}]", template)
    return re.compile("[^/]+".join(map(re.escape, parts)))


def find_operation(document, method, path):
    """-> the operation and its parameters, resolved, or (None, []). A path without braces goes before one with."""
    paths = document["paths"]
    template = path if path in paths else next((key for key in paths if template_pattern(key).fullmatch(path)), None)
    item = paths.get(template, {})
    operation = item.get("get" if method == "HEAD" else method.lower())
    if operation is None:
        return None, []
    parameters = item.get("parameters", []) + operation.get("parameters", [])
    return operation, [resolve(document, value["$ref"]) if "$ref" in value else value for value in parameters]


def check_query(document, query, parameters, answer):
    """Whoever sends a query parameter that is not in the contract, or a wrong value, is told so."""
    schemas = {parameter["name"]: parameter["schema"] for parameter in parameters if parameter["in"] == "query"}
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        try:
            assert name in schemas, f"{name} is not in the contract"
            schema = schemas[name]
            check(document, schema, int(value) if schema.get("type") == "integer" else value, f"?{name}")
        except (AssertionError, ValueError):
            assert 400 <= answer.status < 500, f"?{name}={value} was answered with {answer.status}"


def check_headers(document, headers, answer, what):
    for name, header in headers.items():
        if "$ref" in header:
            header = resolve(document, header["$ref"])
        value = answer.headers.get(name)
        assert value is not None or not header.get("required"), f"{what} without {name}"
        schema = header["schema"]
        if value is not None:
            check(document, schema, float(value) if schema.get("type") in ("number", "integer") else value, name)


def check_preflight(answer):
    """OPTIONS is an operation of no path in particular: what else the path answers to, and CORS."""
    if answer.status == 204:
        assert answer.headers["Allow"] and answer.body == b""
        return
    assert answer.status == 404 and answer.headers["Content-Type"] == "application/problem+json"


def check_answer(document, method, path, answer):
    """An answer of the daemon against what the contract promises for it. A method or a path that is not in the
    contract must be answered with a problem."""
    path, _, query = path.partition("?")
    media_type = answer.headers.get("Content-Type")
    operation, parameters = find_operation(document, method, path)
    if method == "OPTIONS":
        check_preflight(answer)
        return
    if operation is None:
        # Where keys are needed, who has none is not told what there is.
        assert answer.status in (401, 404, 405) and media_type == "application/problem+json"
        check(document, {"$ref": "#/components/schemas/Problem"}, answer.json())
        return
    what = f"{method} {path} answered {answer.status}"
    check_query(document, query, parameters, answer)
    promised = operation["responses"].get(str(answer.status))
    assert promised, f"{what}, which is not in the contract"
    if "$ref" in promised:
        promised = resolve(document, promised["$ref"])
    check_headers(document, promised.get("headers", {}), answer, what)
    if "content" not in promised:
        assert answer.body == b"", f"{what} with a body"
        return
    media_type = media_type.split(";")[0].strip()
    content = promised["content"].get(media_type, promised["content"].get("*/*"))
    assert content is not None, f"{what} with {media_type}"
    if "schema" in content and method != "HEAD":
        check(document, content["schema"], answer.json())

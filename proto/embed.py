#!/usr/bin/env python3
"""Writes proto/openapi.yaml as JSON into server/api/openapi_document.c. Run it after changing the contract:

    python3 proto/embed.py           (needs python3-yaml; building vampd does not)
    python3 proto/embed.py --check   exits 1 where the C file is out of date

YAML's anchors and merge keys are resolved on the way. Lines are short because ISO C bounds the length of a literal.
"""
import json
import os
import sys

import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
YAML = os.path.join(HERE, "openapi.yaml")
TARGET = os.path.join(HERE, "..", "server", "api", "openapi_document.c")
WIDTH = 100
HEAD = """/* proto/openapi.yaml as JSON: written by proto/embed.py, not by hand. See openapi_document.h. */
#include "server/api/openapi_document.h"

#include <stddef.h>

/* clang-format off */
const char *const vampd_openapi_document[] = {
"""


def render():
    with open(YAML, encoding="utf-8") as file:
        text = json.dumps(yaml.safe_load(file), separators=(",", ":"), ensure_ascii=True)
    lines = [text[i:i + WIDTH] for i in range(0, len(text), WIDTH)]
    escaped = ('  "' + line.replace("\\", "\\\\").replace('"', '\\"') + '",\n' for line in lines)
    return HEAD + "".join(escaped) + "  NULL,\n};\n"


def main():
    rendered = render()
    if sys.argv[1:] == ["--check"]:
        with open(TARGET, encoding="utf-8") as file:
            if file.read() != rendered:
                sys.exit("server/api/openapi_document.c is out of date: run proto/embed.py")
        return
    with open(TARGET, "w", encoding="utf-8") as file:
        file.write(rendered)


if __name__ == "__main__":
    main()

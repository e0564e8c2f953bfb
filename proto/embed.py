#!/usr/bin/env python3
"""Writes proto/openapi.yaml as JSON into proto/openapi.json, which goes into the binary. Run it after changing the contract:

    python3 proto/embed.py           (needs python3-yaml; building vampd does not)
    python3 proto/embed.py --check   exits 1 where the JSON is out of date

YAML's anchors and merge keys are resolved on the way. Each operation and each component is a line, so that a change
shows where it is.
"""
import json
import os
import sys

import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
YAML = os.path.join(HERE, "openapi.yaml")
TARGET = os.path.join(HERE, "openapi.json")
LEVELS = 3


def layout(value, levels):
    if not levels or not isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    members = (f"{json.dumps(name)}:{layout(member, levels - 1)}" for name, member in value.items())
    return "{\n" + ",\n".join(members) + "\n}"


def main():
    with open(YAML, encoding="utf-8") as file:
        rendered = layout(yaml.safe_load(file), LEVELS) + "\n"
    if sys.argv[1:] == ["--check"]:
        with open(TARGET, encoding="utf-8") as file:
            if file.read() != rendered:
                sys.exit("proto/openapi.json is out of date: run proto/embed.py")
        return
    with open(TARGET, "w", encoding="utf-8") as file:
        file.write(rendered)


if __name__ == "__main__":
    main()

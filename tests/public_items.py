#!/usr/bin/env python3
"""Lists what a crate lets its users name: `python3 tests/public_items.py target/doc/NAME.json`, from rustdoc's JSON.

Counted are modules, types, traits, functions, methods, constants and what is exported from other crates, each once; not
fields, variants and implementations of traits.
"""

import json
import sys

KINDS = {"module", "struct", "enum", "union", "trait", "function", "constant", "static", "type_alias", "macro", "assoc_const"}


class Crate:
    def __init__(self, document):
        self.index = document["index"]
        self.seen = set()
        self.found = []
        self.walk(document["root"], "")

    def walk(self, number, place):
        item = self.index.get(str(number))
        if item is None or number in self.seen or item["visibility"] != "public":
            return
        ((kind, inner),) = item["inner"].items()
        if kind == "use":
            if str(inner["id"]) in self.index:
                self.walk(inner["id"], place)
            else:
                self.found.append(f"{place}::{inner['name']} (of another crate)")
            return
        self.seen.add(number)
        name = f"{place}::{item['name']}".removeprefix("::")
        if kind in KINDS:
            self.found.append(name)
        for child in inner.get("items", []):
            self.walk(child, name)
        for implementation in inner.get("impls", []):
            block = self.index.get(str(implementation), {"inner": {"impl": {"trait": True}}})["inner"]["impl"]
            if block["trait"] is None:
                for child in block["items"]:
                    self.walk(child, name)


with open(sys.argv[1], encoding="utf-8") as file:
    items = Crate(json.load(file)).found
print("\n".join(items))
print(len(items), "public items")

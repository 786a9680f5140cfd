#!/usr/bin/env python3
"""docs/openapi.yaml says what the controller does: every route is there and no other, and answers fit their schemas."""

import json
import re
import subprocess
import sys

import yaml

METHODS = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "null": type(None)}
CHECKED = {"$ref", "type", "enum", "const", "oneOf", "properties", "required", "items", "additionalProperties",
           "pattern"}
UNCHECKED = {"minimum", "maximum", "minLength", "maxLength", "maxItems"}
COMMENTS = {"description", "examples", "default", "format"}


class Document:
    def __init__(self, root):
        self.root = root

    def resolve(self, node):
        while "$ref" in node:
            target = self.root
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
        return node

    def references(self, node):
        if isinstance(node, dict):
            if "$ref" in node:
                self.resolve(node)
            for member in node.values():
                self.references(member)
        elif isinstance(node, list):
            for member in node:
                self.references(member)

    def misfits(self, schema, value, where):
        """What is wrong with a value, by the part of JSON Schema that we use. Undocumented members are wrong."""
        schema = self.resolve(schema)
        unknown = set(schema) - CHECKED - UNCHECKED - COMMENTS
        if unknown:
            yield f"{where}: this check does not know {sorted(unknown)}"
        if "const" in schema and value != schema["const"]:
            yield f"{where}: {value!r} is not {schema['const']!r}"
        if "enum" in schema and value not in schema["enum"]:
            yield f"{where}: {value!r} is none of {schema['enum']}"
        if "oneOf" in schema:
            fitting = [one for one in schema["oneOf"] if not list(self.misfits(one, value, where))]
            if len(fitting) != 1:
                yield f"{where}: {value!r} fits {len(fitting)} alternatives instead of one"
        if "type" in schema:
            names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            # For Python a truth value is a number too.
            fits = [isinstance(value, TYPES[name]) and (name == "boolean") == isinstance(value, bool) for name in names]
            if not any(fits):
                yield f"{where}: {value!r} is no {names}"
                return
        if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{where}: {value!r} does not match {schema['pattern']}"
        if isinstance(value, dict):
            yield from self.object_misfits(schema, value, where)
        if isinstance(value, list) and "items" in schema:
            for number, item in enumerate(value):
                yield from self.misfits(schema["items"], item, f"{where}[{number}]")

    def object_misfits(self, schema, value, where):
        for name in schema.get("required", []):
            if name not in value:
                yield f"{where}: has no {name}"
        properties = schema.get("properties")
        for name, member in value.items():
            if properties is not None and name in properties:
                yield from self.misfits(properties[name], member, f"{where}.{name}")
            elif isinstance(schema.get("additionalProperties"), dict):
                yield from self.misfits(schema["additionalProperties"], member, f"{where}.{name}")
            elif properties is not None:
                yield f"{where}: {name} is not documented"


def route_misfits(document, routes):
    documented = {}
    for path, item in document.root["paths"].items():
        for method in METHODS & set(item):
            documented[method.upper(), path] = (item, item[method])
    served = {(route["method"], route["pattern"]): route for route in routes}
    for method, path in sorted(served.keys() - documented.keys()):
        yield f"{method} {path} is served and not documented"
    for method, path in sorted(documented.keys() - served.keys()):
        yield f"{method} {path} is documented and not served"
    for key in served.keys() & documented.keys():
        item, operation = documented[key]
        where = " ".join(key)
        parameters = [document.resolve(one) for one in item.get("parameters", []) + operation.get("parameters", [])]
        named = {one["name"] for one in parameters if one["in"] == "path"}
        if named != set(re.findall(r"{(\w+)}", key[1])):
            yield f"{where}: its path parameters are documented as {sorted(named)}"
        if served[key]["needs_token"] != (operation.get("security", document.root["security"]) != []):
            yield f"{where}: whether it needs a token is documented wrongly"
        if served[key]["is_websocket"] != ("101" in operation["responses"]):
            yield f"{where}: whether it is a WebSocket is documented wrongly"


def answer_misfits(document, answers):
    for answer in answers:
        operation = document.root["paths"][answer["pattern"]][answer["method"].lower()]
        where = f"{answer['method']} {answer['pattern']} {answer['status']}"
        response = operation["responses"].get(str(answer["status"]))
        if response is None:
            yield f"{where}: the status is not documented"
            continue
        content = document.resolve(response).get("content")
        if content is None:
            if answer["body"] is not None:
                yield f"{where}: the body is not documented"
        elif answer["content_type"] not in content:
            yield f"{where}: {answer['content_type']} is not documented"
        else:
            yield from document.misfits(content[answer["content_type"]]["schema"], answer["body"], where)
        if answer["request"] is not None and answer["status"] < 300:
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            yield from document.misfits(body, answer["request"], where + " request")


def main():
    described = json.loads(subprocess.run([sys.argv[1]], stdout=subprocess.PIPE, check=True).stdout)
    with open(sys.argv[2], encoding="utf-8") as file:
        document = Document(yaml.safe_load(file))
    document.references(document.root)
    found = list(route_misfits(document, described["routes"])) or list(answer_misfits(document, described["answers"]))
    count = len(described["routes"])
    print("\n".join(found) or f"{count} routes and {len(described['answers'])} answers are as documented")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

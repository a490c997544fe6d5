#!/usr/bin/env python3
"""Prints the libraries that are part of the program, with their licences: what those ask of whoever passes it on."""
import json
import pathlib
import subprocess
import sys

triple = next(l.split()[1] for l in subprocess.check_output(["rustc", "-vV"], text=True).splitlines() if l.startswith("host:"))
metadata = json.loads(subprocess.check_output(
    ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", triple]))
packages = {package["id"]: package for package in metadata["packages"]}
edges = {node["id"]: [dep["pkg"] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
         for node in metadata["resolve"]["nodes"]}
found, waiting = set(), [metadata["resolve"]["root"]]
while waiting:
    package = waiting.pop()
    if package not in found:
        found.add(package)
        waiting.extend(edges[package])
found.discard(metadata["resolve"]["root"])

texts = {}
for package in sorted((packages[id] for id in found), key=lambda package: (package["name"], package["version"])):
    name = f'{package["name"]} {package["version"]}'
    print(f'{name}: {package["license"] or "see its text below"}')
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and f.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE"))]
    for file in files:
        # The Apache licence is the same for all, and in this package once.
        text = file.read_text(errors="replace").strip()
        if "Apache License" not in text[:200]:
            texts.setdefault(text, []).append(name)
for text, names in texts.items():
    print(f'\n{"=" * 80}\n{", ".join(names)}\n\n{text}')
if len(found) < 50:
    sys.exit(f"error: only {len(found)} libraries were found")

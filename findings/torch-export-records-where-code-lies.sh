#!/usr/bin/env bash
# Finding: a file saved by torch.export records where the code of the network lay. For every operation it holds the
# absolute path and line of the Python source, and the module path of each class; its `serialization_id` follows from
# that. The same call gives the same bytes, but the same network with the same weights gives others from another
# folder or from another file, although it computes the same: the file's digest names the checkout as well as the
# model, and a model that is handed out tells the folders of whoever made it.
# The same bytes come from dropping `stack_trace` from each node's meta before saving, and from giving each class a
# fixed `__module__`.
#
# Seen with torch 2.13.0 (Python 3.11, Linux x86_64, CPU); the output is below. Fails when any of it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5 2>/dev/null

cat > first.py <<'PY'
import torch


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x))
PY
cp first.py second.py

cat > look.py <<'PY'
import importlib
import io
import zipfile

import torch

INPUT = (torch.ones(1, 4),)


def saved(module: str, *, traces: bool, name: str = "") -> dict[str, bytes]:
    kind = importlib.import_module(module).Network
    kind.__module__ = name or module
    torch.manual_seed(0)
    network = kind().eval()
    answers.add(str(network(*INPUT).tolist()))
    program = torch.export.export(network, INPUT)
    if not traces:
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
    file = io.BytesIO()
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        return {member.split("/", 1)[1]: archive.read(member) for member in archive.namelist()}


def different(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


answers: set[str] = set()
as_it_is = saved("first", traces=True)
plain = saved("first", traces=False)
print("the same call again:", different(as_it_is, saved("first", traces=True)))
print("holds the folder:", importlib.import_module("first").__file__.encode() in as_it_is["models/model.json"])
print("from another file:", different(plain, saved("second", traces=False)))
fixed = [saved(module, traces=False, name="network") for module in ("first", "second")]
print("without traces, one name:", different(*fixed))
print("different answers:", len(answers) - 1)
PY
cat > expected <<'TXT'
the same call again: []
holds the folder: True
from another file: ['.data/serialization_id', 'models/model.json']
without traces, one name: []
different answers: 0
TXT
environment/bin/python look.py | tee seen
diff expected seen

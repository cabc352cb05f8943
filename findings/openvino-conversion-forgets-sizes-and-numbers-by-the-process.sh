#!/usr/bin/env bash
# Finding: OpenVINO converts a program of torch.export, whose input has fixed sizes, to a model that has forgotten
# them, also where an example input is given: batch, height and width are dynamic, and of the sizes only the channels
# are left, which follow from the first convolution's weights. `input=` (or a reshape afterwards) brings them back.
# And the same program converted twice in one process gives two different .xml files: the model and its constants are
# named by counters of the process. Weights are the same bytes. A digest of the .xml therefore says how many models the
# process had converted before; names that are set by hand make it a digest of the model.
# The conversion imports `packaging`, which openvino does not name as a requirement: it is installed here beside it.
#
# Seen with openvino 2026.4.1, torch 2.14.1 (Python 3.11, Linux x86_64, CPU); the output is below. Fails when any of
# it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check openvino==2026.4.1 torch==2.14.1 numpy==2.4.6 packaging==26.3 2>/dev/null

cat > look.py <<'PY'
import hashlib
import re
import warnings
from importlib.metadata import requires
from pathlib import Path

warnings.simplefilter("ignore")
import openvino
import torch


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3)
        self.classifier = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.relu(self.convolution(x)).mean((2, 3)))


def digests(model: openvino.Model) -> tuple[str, ...]:
    openvino.save_model(model, "model.xml", compress_to_fp16=False)
    return tuple(hashlib.sha256(Path(f"model.{end}").read_bytes()).hexdigest() for end in ("xml", "bin"))


def named(model: openvino.Model) -> openvino.Model:
    model.set_friendly_name("model")
    for number, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    return model


print("required:", sorted(re.split(r"[<>=; ]", one)[0] for one in requires("openvino")))
torch.manual_seed(0)
example = (torch.zeros((1, 3, 8, 8)),)
program = torch.export.export(Network().eval(), example)
print("exported:", next(list(n.meta["val"].shape) for n in program.graph.nodes if n.name == "x"))
convert = openvino.convert_model
print("converted:", convert(program).input().partial_shape)
print("with an example:", convert(program, example_input=example).input().partial_shape)
print("with its sizes:", convert(program, input=[1, 3, 8, 8]).input().partial_shape)
one, other = (digests(convert(program)) for _ in range(2))
print("converted twice, the same .xml and .bin:", one[0] == other[0], one[1] == other[1])
one, other = (digests(named(convert(program))) for _ in range(2))
print("named by hand:", one[0] == other[0], one[1] == other[1])
PY
cat > expected <<'TXT'
required: ['numpy', 'openvino-telemetry']
exported: [1, 3, 8, 8]
converted: [?,3,?,?]
with an example: [?,3,?,?]
with its sizes: [1,3,8,8]
converted twice, the same .xml and .bin: False True
named by hand: True True
TXT
environment/bin/python look.py | tee seen
diff expected seen

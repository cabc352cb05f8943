#!/usr/bin/env bash
# Finding: Kubeflow Pipelines' local runner does not find the value of a condition that is a task's named output
# (`task.outputs["shards"]`, from `dsl.OutputPath`). It warns, skips the whole branch, and calls the pipeline a success,
# with `raise_on_error=True` too. The single output of a task that returns its value (`task.output`) works. So a pipeline
# that branches on what a container component wrote, which has named outputs only, does nothing locally and says SUCCESS;
# handing the output to a nested pipeline as a parameter, and branching there, works. Here without containers, in the
# subprocess runner; the runner for containers does the same.
#
# Seen with kfp 2.17.0 (Python 3.11, Linux x86_64); the output is below. Fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check kfp==2.17.0 2>/dev/null

cat > pipelines.py <<'PYTHON'
import logging
import pathlib
import sys

from kfp import dsl, local

logging.disable(logging.INFO)
local.init(local.SubprocessRunner(use_venv=False), raise_on_error=True, pipeline_root="root")


@dsl.component(install_kfp_package=False)
def returned() -> int:
    return 3


@dsl.component(install_kfp_package=False)
def named(shards: dsl.OutputPath(int)):
    open(shards, "w").write("3")


@dsl.component(install_kfp_package=False)
def score(number: int, mark: str):
    open(mark, "w").write(str(number))


@dsl.pipeline
def on_the_only_output(mark: str):
    made = returned()
    with dsl.If(made.output > 0):
        score(number=made.output, mark=mark)


@dsl.pipeline
def on_a_named_output(mark: str):
    made = named()
    with dsl.If(made.outputs["shards"] > 0):
        score(number=made.outputs["shards"], mark=mark)


@dsl.pipeline
def branch(shards: int, mark: str):
    with dsl.If(shards > 0):
        score(number=shards, mark=mark)


@dsl.pipeline
def on_a_parameter(mark: str):
    made = named()
    branch(shards=made.outputs["shards"], mark=mark)


for pipeline in (on_the_only_output, on_a_named_output, on_a_parameter):
    mark = pathlib.Path(f"{pipeline.name}.txt").absolute()
    pipeline(mark=str(mark))
    done = f"scored {mark.read_text()}" if mark.exists() else "nothing was scored"
    print(f"{pipeline.name}: no error, {done}", file=sys.stderr)
PYTHON
environment/bin/python pipelines.py > log.txt 2> told.txt
grep -E "^(on-|WARNING)" told.txt | tee seen.txt

diff seen.txt - <<'SEEN' && echo "as found"
on-the-only-output: no error, scored 3
WARNING:root:Could not resolve parent input: named-shards
WARNING:root:Could not resolve CEL parameter: pipelinechannel--named-shards
on-a-named-output: no error, nothing was scored
on-a-parameter: no error, scored 3
SEEN

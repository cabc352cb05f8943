#!/usr/bin/env bash
# Finding: torch-model-archiver works in the folder <temporary folder>/<model name>. If there is one already, it is removed
# without a word, whatever lies in it, and the folder is removed again at the end. So a model that is called like a folder
# of somebody's in /tmp costs that folder. It follows, and is not shown here, that two packings of one model name at once
# take each other's files away. A TMPDIR of its own for each call makes it right; `--export-path` does not.
#
# Seen with torch-model-archiver 0.12.0 (Python 3.11, Linux x86_64); the output is below. Fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check torch-model-archiver==0.12.0 2>/dev/null

mkdir -p temporary/parts out
echo "a week of work" > temporary/parts/notes.txt
echo weights > weights.bin
echo "def handle(data, context): return [None]" > handler.py

export TMPDIR="$folder/temporary"
environment/bin/torch-model-archiver --model-name parts --version 1.0 --serialized-file weights.bin \
    --handler handler.py --export-path out
{
    echo "archive: $(ls out)"
    [ -e temporary/parts/notes.txt ] && echo "notes.txt is there" || echo "notes.txt is gone"
    [ -d temporary/parts ] && echo "its folder is there" || echo "its folder is gone"
} | tee seen.txt

diff seen.txt - <<'SEEN' && echo "as found"
archive: parts.mar
notes.txt is gone
its folder is gone
SEEN

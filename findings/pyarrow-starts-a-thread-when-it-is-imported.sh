#!/usr/bin/env bash
# Finding: `import pyarrow` starts a thread (jemalloc's, which gives memory back), whatever memory pool is chosen:
# ARROW_DEFAULT_MEMORY_POOL=system changes nothing about it. A process that imports first and forks later (a
# fork server, gunicorn --preload, a pre-forking worker) thus has two threads when it forks, which Python 3.12 warns of and
# fork-safe designs exclude. The variable that helps is of the allocator itself, under its prefix within Arrow, and must be
# set before the import: JE_ARROW_MALLOC_CONF=background_thread:false.
#
# Seen with pyarrow 26.0.1 (Python 3.11, Linux x86_64); the output is below. Fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check pyarrow==26.0.1

cat > threads.py <<'PY'
import os

import pyarrow

names = sorted(open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task"))
print(len(names), [name for name in names if "jemalloc" in name])
PY
{
    echo "as it is: $(environment/bin/python threads.py)"
    echo "another pool: $(ARROW_DEFAULT_MEMORY_POOL=system environment/bin/python threads.py)"
    echo "told so: $(JE_ARROW_MALLOC_CONF=background_thread:false environment/bin/python threads.py)"
} | tee seen
diff - seen <<'TXT'
as it is: 2 ['jemalloc_bg_thd']
another pool: 2 ['jemalloc_bg_thd']
told so: 1 []
TXT

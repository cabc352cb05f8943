#!/usr/bin/env bash
# Finding: `mlflow models serve` calls one pyfunc model from several threads at once, with one worker, too (its default):
# requests that arrive together run in the same object's `predict` side by side. A model that keeps anything of a call
# in itself (a buffer, an inference request, an interpreter) then answers one client with the other client's rows,
# with status 200. The same requests one after the other are right. A lock around `predict` makes it right.
#
# Seen with mlflow 3.17.2 (Python 3.11, Linux x86_64); the output is below. Fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -- -"$server" 2>/dev/null || true; sleep 1; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check mlflow==3.17.2 2>/dev/null
export PATH="$folder/environment/bin:$PATH" MLFLOW_DISABLE_TELEMETRY=true

cat > model.py <<'PY'
import threading
import time

import mlflow


class Kept(mlflow.pyfunc.PythonModel):
    """Keeps its input in itself while it works, as a buffer that is filled and then computed on."""

    def load_context(self, context) -> None:
        self.most, self.inside, self.lock = 0, 0, threading.Lock()

    def predict(self, context, model_input, params=None):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.buffer = list(model_input)
        time.sleep(0.2)
        answer = [value * 2 for value in self.buffer]
        with self.lock:
            self.inside -= 1
        return [[value, self.most] for value in answer]


mlflow.models.set_model(Kept())
PY
cat > save.py <<'PY'
import mlflow

mlflow.pyfunc.save_model("saved", python_model="model.py", pip_requirements=[])
PY
cat > ask.py <<'PY'
import json
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

URL = f"http://127.0.0.1:{sys.argv[1]}/invocations"


def ask(number: int) -> tuple[bool, int]:
    body = json.dumps({"inputs": [number]}).encode()
    request = urllib.request.Request(URL, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        ((value, most),) = json.loads(reply.read())["predictions"]
    return value == number * 2, most


print("one after the other, all right:", all(ask(number)[0] for number in range(8)))
with ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(ask, range(100, 132)))
print("together, all with status 200, all right:", all(right for right, _ in answers))
print("together, more than one thread in predict:", max(most for _, most in answers) > 1)
PY
cat > expected <<'TXT'
one after the other, all right: True
together, all with status 200, all right: False
together, more than one thread in predict: True
TXT
environment/bin/python save.py >log 2>&1
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
setsid environment/bin/mlflow models serve --model-uri saved --host 127.0.0.1 --port "$port" --env-manager local >>log 2>&1 &
server=$!
for _ in $(seq 120); do
    python3 -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/health')" 2>/dev/null && break
    sleep 1
done
environment/bin/python ask.py "$port" | tee seen || { tail -20 log; exit 1; }
diff expected seen

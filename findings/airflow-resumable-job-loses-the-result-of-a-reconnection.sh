#!/usr/bin/env bash
# Finding: Airflow's ResumableJobMixin promises that a retry which finds its job still running reconnects to it. It does,
# and polls it to its end, but returns what `poll_until_complete` returns, which is declared to be None: `get_job_result`
# is called for a fresh job and for one that has already succeeded, and not for this third case. So the task succeeds
# without its return value (its XCom is empty), in just the runs in which a worker was killed. An operator that keeps to
# the mixin's own example gives its result on each path but this one.
#
# Seen with apache-airflow-task-sdk 1.3.2 and apache-airflow-core 3.3.2 (Python 3.11, Linux x86_64); the output is below.
# Fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check \
    apache-airflow-task-sdk==1.3.2 apache-airflow-core==3.3.2 2>/dev/null

cat > retry.py <<'PYTHON'
from airflow.sdk import BaseOperator
from airflow.sdk.bases.resumablejobmixin import ResumableJobMixin

STATUS = "RUNNING"


class Job(ResumableJobMixin, BaseOperator):
    def execute(self, context):
        return self.execute_resumable(context)

    def submit_job(self, context):
        self.did.append("submit")
        return "job-1"

    def get_job_status(self, external_id, context):
        return STATUS

    def is_job_active(self, status):
        return status == "RUNNING"

    def is_job_succeeded(self, status):
        return status == "SUCCEEDED"

    def poll_until_complete(self, external_id, context):
        self.did.append("poll")

    def get_job_result(self, external_id, context):
        self.did.append("get the result")
        return {"rows": 3}


def attempt(what, store):
    job = Job(task_id="job")
    job.did = []
    result = job.execute_resumable({"task_state_store": store})
    print(f"{what}: {', '.join(job.did)}; returned {result}")


store = {}
store_api = type("Store", (), {"get": store.get, "set": store.__setitem__})
attempt("first attempt", store_api)
attempt("retry, the job is running", store_api)
STATUS = "SUCCEEDED"
attempt("retry, the job has succeeded", store_api)
PYTHON
AIRFLOW_HOME="$folder/airflow" environment/bin/python retry.py 2> log.txt | grep -E "attempt|retry" | tee seen.txt

diff seen.txt - <<'SEEN' && echo "as found"
first attempt: submit, poll, get the result; returned {'rows': 3}
retry, the job is running: poll; returned None
retry, the job has succeeded: get the result; returned {'rows': 3}
SEEN

"""Ways to tell people: e-mail, a Slack-compatible webhook, a webhook of any kind. Each message once.

An installation chooses by variables, all beginning with `IMAGEBATCH_ALERT_`; secrets are read from files.

    WEBHOOK, WEBHOOK_TOKEN_FILE      address for one JSON object per alert; file of a bearer token
    SLACK_FILE                       file with the address of an incoming webhook (Slack, Mattermost, …)
    EMAIL, ESCALATION_EMAIL          comma-separated addresses; the second ones hear of escalations only
    SMTP, FROM                       host:port of the mail server; sender
    SMTP_USER, SMTP_PASSWORD_FILE    login, after STARTTLS
    STATE                            folder that remembers what was sent; default: alerts in Airflow's home
"""

import hashlib
import json
import logging
import os
import smtplib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from pathlib import Path
from urllib.request import Request, urlopen

log = logging.getLogger(__name__)

SECONDS = 10.0  # for each receiver
ESCALATION = "escalation"


@dataclass(frozen=True)
class Notice:
    """What is told.

    Attributes:
        text: one line.
        severity: `warn`, `late` or `escalation`.
        state: of the run; `changed` for a trend.
        run: DAG id and run id; the key of a trend.
        key: the same for the same event, so that a receiver too can tell a repetition.
        page: where to read what to do.
    """

    text: str
    severity: str
    state: str
    run: str
    key: str
    page: str = "docs/how-to/runbook.md#imagebatchmisseddeadline"


def notify(notice: Notice) -> list[str]:
    """Tell a notice to every receiver that is set, once each.

    Args:
        notice: what happened.

    Returns:
        Names of the receivers that were told now; those told before are not.

    Raises:
        OSError: a receiver could not be told. All others were, and a further call tells only the missing one.
        ValueError: a setting cannot be.
    """
    told, failures = [], []
    for name, send in _receivers(notice).items():
        sent = _marker(notice, name)
        try:
            sent.parent.mkdir(parents=True, exist_ok=True)
            sent.touch(exist_ok=False)  # created by one process only, however many call
        except FileExistsError:
            log.info("%s was told before: %s", name, notice.text)
            continue
        try:
            send()
        except (OSError, ValueError) as error:  # smtplib's errors are OSErrors
            sent.unlink(missing_ok=True)
            failures.append(error)
            log.warning("%s cannot be told: %s", name, error)
        else:
            told.append(name)
    if failures:
        raise failures[0]
    return told


def _receivers(notice: Notice) -> dict[str, Callable[[], None]]:
    env = os.environ.get
    found: dict[str, Callable[[], None]] = {}
    if webhook := env("IMAGEBATCH_ALERT_WEBHOOK"):
        found["webhook"] = lambda: _post(
            webhook, asdict(notice), _secret("IMAGEBATCH_ALERT_WEBHOOK_TOKEN_FILE")
        )
    if env("IMAGEBATCH_ALERT_SLACK_FILE"):
        found["slack"] = lambda: _post(
            _secret("IMAGEBATCH_ALERT_SLACK_FILE"), {"text": f"{notice.text}\nWhat to do: {notice.page}"}
        )
    addresses = env("IMAGEBATCH_ALERT_EMAIL", "")
    if notice.severity == ESCALATION:
        addresses += "," + env("IMAGEBATCH_ALERT_ESCALATION_EMAIL", "")
    if to := [address.strip() for address in addresses.split(",") if address.strip()]:
        found["e-mail"] = lambda: _mail(notice, to)
    return found


def _marker(notice: Notice, receiver: str) -> Path:
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    folder = Path(os.environ.get("IMAGEBATCH_ALERT_STATE") or Path(home, "alerts")).expanduser()
    return folder / hashlib.sha256(f"{notice.key}\n{receiver}".encode()).hexdigest()[:32]


def _secret(variable: str) -> str:
    path = os.environ.get(variable)
    return Path(path).read_text(encoding="utf-8").strip() if path else ""


def _post(url: str, body: dict[str, str], token: str = "") -> None:
    if not url.startswith(("https://", "http://")):
        raise ValueError("the address of an alert webhook must be an http or https URL")
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - checked above
    with urlopen(request, timeout=SECONDS):  # noqa: S310 - checked above
        log.info("Posted to an alert webhook")


def _mail(notice: Notice, to: list[str]) -> None:
    host, _, port = os.environ.get("IMAGEBATCH_ALERT_SMTP", "localhost:25").rpartition(":")
    mail = EmailMessage()
    mail["Subject"] = notice.text
    mail["From"] = os.environ.get("IMAGEBATCH_ALERT_FROM", "imagebatch@localhost")
    mail["To"] = ", ".join(to)
    mail["Message-ID"] = f"<{hashlib.sha256(notice.key.encode()).hexdigest()[:32]}@imagebatch>"
    mail.set_content(f"{notice.text}\n\nWhat to do: {notice.page}\n")
    password = _secret("IMAGEBATCH_ALERT_SMTP_PASSWORD_FILE")
    with smtplib.SMTP(host, int(port), timeout=SECONDS) as server:
        if password:
            server.starttls()  # never a password in the clear
            server.login(os.environ.get("IMAGEBATCH_ALERT_SMTP_USER", ""), password)
        server.send_message(mail)

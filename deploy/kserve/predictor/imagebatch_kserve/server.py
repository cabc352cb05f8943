"""The command `imagebatch-kserve`: KServe's model server on an archive, V1 and V2 over REST, V2 over gRPC.

It takes KServe's own flags (`--model_name`, `--http_port`, `--grpc_port`, …) and those below.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent import futures
from pathlib import Path
from typing import Any

from grpc import aio
from kserve import ModelServer, model_server
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as grpc_v2
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor, LoggingInterceptor
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.utils import utils

from imagebatch_kserve.archive import ArchiveError, find, load
from imagebatch_kserve.middleware import BodyLimit, OwnVersion
from imagebatch_kserve.predictor import Predictor

MOST_BYTES = 256 << 20
CONFIGURATION = 78  # exit code, docs/reference/protocol.md


class FixedModels(ModelRepositoryExtension):  # type: ignore[misc]  # kserve has no type marker
    """Models stay as they were loaded: whoever may ask for predictions may not unload them."""

    async def load(self, model_name: str) -> None:
        """Refuse, see the class."""
        raise InvalidInput(f"{model_name}: models of this server are neither loaded nor unloaded by request")

    async def unload(self, model_name: str) -> None:
        """Refuse, see the class."""
        await self.load(model_name)


class Grpc(GRPCServer):  # type: ignore[misc]  # kserve has no type marker
    """KServe's gRPC server on one address.

    Args:
        host: The address.
        further: KServe's own arguments.
    """

    def __init__(self, host: str, *further: Any, **named: Any) -> None:
        super().__init__(*further, **named)
        self._host = host

    async def start(self, max_workers: int) -> None:
        """Answer until it is stopped; as in KServe, but for the address."""
        limits = ("grpc_max_send_message_length", "grpc_max_receive_message_length")
        self._server = aio.server(
            futures.ThreadPoolExecutor(max_workers),
            interceptors=(LoggingInterceptor(), ExceptionToStatusInterceptor()),
            options=[(name.replace("_", ".", 1), self._kwargs[name]) for name in limits],
        )
        servicer = InferenceServicer(self._data_plane, self._model_repository_extension)
        grpc_v2.add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
        self._server.add_insecure_port(f"{self._host}:{self._port}")
        await self._server.start()
        await self._server.wait_for_termination()


class Server(ModelServer):  # type: ignore[misc]  # kserve has no type marker
    """KServe's server on one address: it would listen on all interfaces.

    Args:
        asked: The parsed command line.
    """

    def __init__(self, asked: argparse.Namespace) -> None:
        super().__init__(http_port=asked.http_port, grpc_port=asked.grpc_port, workers=1, enable_grpc=False)
        self.model_repository_extension = FixedModels(model_registry=self.registered_models)
        self._asked = asked

    async def _serve(self) -> None:
        self._rest_server.config.host = self._asked.host
        if self._asked.enable_grpc:
            self._grpc_server = Grpc(
                self._asked.host,
                self.grpc_port,
                self.dataplane,
                self.model_repository_extension,
                kwargs=vars(self._asked),
            )
            self.servers.append(self._grpc_server.start(self.max_threads))
        await super()._serve()


def main() -> int:
    """Serve until a signal says to end.

    Returns:
        0, or 78 where there is nothing that can be served.
    """
    asked = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="imagebatch-kserve-") as folder:
        try:
            archive = find(asked.model_dir, asked.model_name)
            served = load(archive, Path(folder), asked.scoring_threads, asked.digest)
        except ArchiveError as error:
            print(f"imagebatch-kserve: {error}", file=sys.stderr)  # noqa: T201 - the one line that says what to do
            return CONFIGURATION
        predictor = Predictor(asked.model_name, served, asked.scoring_threads)
        _extend(predictor, asked.max_request_bytes)
        Server(asked).start([predictor])
    return 0


def _extend(predictor: Predictor, most: int) -> None:
    """Give KServe's application a bound on bodies, versions in paths, and metadata with labels and digest.

    Its own metadata have no room for these; a route that is there first is the one that answers.
    """
    app = model_server.app
    app.add_middleware(OwnVersion, version=predictor.served.version)
    app.add_middleware(BodyLimit, most=most)

    async def metadata(model_name: str) -> dict[str, Any]:
        if model_name != predictor.name:
            raise ModelNotFound(model_name)
        return predictor.metadata()

    app.add_api_route("/v2/models/{model_name}", metadata, methods=["GET"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imagebatch-kserve",
        description=str(__doc__),
        parents=[model_server.parser],
        conflict_handler="resolve",
        allow_abbrev=False,
    )
    parser.add_argument("--model_name", required=True, help="name of the model in paths")
    parser.add_argument(
        "--model_dir",
        type=Path,
        default=Path("/mnt/models"),
        help="a .mar, or a folder with it, or with it in model-store/ (default: /mnt/models)",
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("IMAGEBATCH_HOST", "127.0.0.1"),
        help="address to listen on (IMAGEBATCH_HOST; default: 127.0.0.1; 0.0.0.0 in a pod)",
    )
    parser.add_argument(
        "--scoring_threads",
        type=_positive,
        default=os.environ.get("IMAGEBATCH_WORKERS") or str(utils.cpu_count()),
        help="images scored at once, a copy of the model for each (IMAGEBATCH_WORKERS; default: the cores)",
    )
    parser.add_argument(
        "--digest", default="", help="sha256:… that the archive's content must have (default: any)"
    )
    parser.add_argument(
        "--max_request_bytes",
        type=_positive,
        default=MOST_BYTES,
        help="of one REST request; a larger one is answered with 413 (default: 268435456)",
    )
    # KServe's own default is 8 MiB: a request that REST takes would be refused.
    parser.set_defaults(grpc_max_receive_message_length=MOST_BYTES)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        msg = f"must be at least 1: got {number}"
        raise argparse.ArgumentTypeError(msg)
    return number


if __name__ == "__main__":
    sys.exit(main())

"""Connecting to a Dask cluster: one that runs, one on this machine, or jobs of SLURM."""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from models.errors import did_you_mean
from offramp.sweep.backend import BackendError

#: Seconds in which a running scheduler must answer.
CONNECT_WITHIN_S = 10.0

#: For how long a sweep waits while there is no worker, in seconds; for SLURM, whose queues may be
#: long, a week.
PATIENCE_S = 300.0
SLURM_PATIENCE_S = 7 * 24 * 3600.0

_INSTALL = "pip install 'offramp[{extra}]'"

#: Dask's loggers, and those of what it runs on.
_LOGGERS = ("distributed", "tornado", "asyncio", "dask_jobqueue", "bokeh")

#: A worker of ours is ended when it takes more than its share of memory; Dask's other measures
#: would hold its tasks back, for data that a sweep does not keep in workers.
_LOCAL_SETTINGS = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
}


class Cluster:
    """A cluster that one is connected to.

    Attributes:
        client: a ``distributed.Client``.
        where: as the user named it.
        shares_disk: whether workers certainly see this machine's files under their names.
        patience_s: for how long to wait while there is no worker.
    """

    def __init__(self, where: str, jobs: int | None) -> None:
        self.where = where
        self.shares_disk = where == "local"
        self.patience_s = SLURM_PATIENCE_S if where == "slurm" else PATIENCE_S
        self._stack = ExitStack()
        try:
            _import_distributed(where)
            self._stack.enter_context(_quiet())
            self.client = self._connect(jobs)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Let go of the cluster, and end it if it is ours."""
        self._stack.close()

    def _connect(self, jobs: int | None) -> Any:
        if self.where == "local":
            return self._own(_local_cluster(jobs or os.cpu_count() or 1))
        if self.where == "slurm":
            return self._own(_slurm_cluster(jobs))
        return self._client(_scheduler_address(self.where))

    def _own(self, cluster: Any) -> Any:
        self._stack.callback(_close, cluster, within_s=60.0)
        return self._client(cluster)

    def _client(self, scheduler: Any) -> Any:
        import distributed

        if str(scheduler).startswith("tls://"):
            _check_certificates(self.where)
        try:
            client = distributed.Client(
                scheduler, timeout=CONNECT_WITHIN_S, set_as_default=False, name="offramp-sweep"
            )
        except (OSError, ValueError, ImportError, RuntimeError, TypeError) as error:
            raise BackendError(
                f"--dask {self.where}: no Dask scheduler answers within {CONNECT_WITHIN_S:.0f} s "
                f"({_first_line(error)}); is `dask scheduler` running there?"
            ) from error
        self._stack.callback(_close, client, within_s=5.0)
        return client


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _import_distributed(where: str) -> None:
    """Import Dask, or say what to install.

    Raises:
        BackendError: it is not there.
    """
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise BackendError(
            f"--dask {where} needs Dask ({error}): {_INSTALL.format(extra='dask')}"
        ) from error


def _scheduler_address(where: str) -> str:
    """The address of a running scheduler, which is given, or stands in a file.

    Raises:
        BackendError: nobody listens there, or it is no address.
    """
    address = _address_in_file(where) if where.endswith(".json") else where
    scheme, separator, rest = address.rpartition("://")
    host, _, port = rest.rpartition(":")
    if scheme not in ("", "tcp", "tls") or (not separator and not port.isdigit()):
        raise BackendError(
            f"--dask {where}: not an address{did_you_mean(where, ('local', 'slurm'))} "
            "(allowed: tcp://HOST:PORT of a running scheduler, tls://HOST:PORT, its scheduler "
            "file .json, local, slurm)"
        )
    if not port.isdigit():
        host, port = rest, "8786"  # Dask's own
    try:
        # Dask would try again and again before it says why.
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_WITHIN_S):
            pass
    except (OSError, OverflowError, UnicodeError) as error:
        raise BackendError(
            f"--dask {where}: cannot reach a scheduler at {host}:{port}: {error}; is `dask "
            "scheduler` running there?"
        ) from error
    return f"{scheme or 'tcp'}://{host}:{port}"


def _check_certificates(where: str) -> None:
    """See that there is what a client needs for TLS; Dask would only say so after many tries.

    Raises:
        BackendError: there is not.
    """
    import distributed

    try:
        context = distributed.Security().get_connection_args("client").get("ssl_context")
    except (OSError, ValueError, TypeError) as error:
        raise BackendError(
            f"--dask {where}: Dask's certificates cannot be used: {error}"
        ) from error
    if context is None:
        raise BackendError(
            f"--dask {where}: tls:// needs certificates: name them in Dask's configuration, "
            "distributed.comm.tls.ca-file and distributed.comm.tls.client.cert and .key (or "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …CLIENT__CERT and …CLIENT__KEY)"
        )


def _address_in_file(where: str) -> str:
    try:
        return str(json.loads(Path(where).read_text(encoding="utf-8"))["address"])
    except OSError as error:
        raise BackendError(f"--dask {where}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(f"--dask {where}: not a scheduler file of Dask's") from error


def _local_cluster(workers: int) -> Any:
    import dask
    import distributed

    with dask.config.set(_LOCAL_SETTINGS | {"distributed.scheduler.allowed-failures": 0}):
        try:
            return distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                worker_dashboard_address=None,
                preload=["offramp.sweep.local_worker"],
                silence_logs=logging.CRITICAL + 1,
            )
        except (OSError, RuntimeError) as error:
            raise BackendError(f"cannot start workers here: {_first_line(error)}") from error


def _slurm_cluster(workers: int | None) -> Any:
    """Workers in jobs of SLURM, as the user's ``jobqueue.yaml`` describes a job."""
    import dask

    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise BackendError(
            f"--dask slurm needs dask-jobqueue ({error}): {_INSTALL.format(extra='slurm')}"
        ) from error
    if workers is None:
        raise BackendError("--dask slurm: say with --jobs how many workers to ask for")
    cores, memory, processes = (
        dask.config.get(f"jobqueue.slurm.{key}", None) for key in ("cores", "memory", "processes")
    )
    if not cores or not memory:
        raise BackendError(
            "--dask slurm: what a job is like stands in jobqueue.slurm of "
            f"{Path(dask.config.PATH, 'jobqueue.yaml')}: give cores and memory there, and queue, "
            "account and walltime as your cluster wants them"
        )
    try:
        # One thread to each worker, unless the file says otherwise.
        cluster = SLURMCluster(processes=processes or cores, silence_logs=logging.CRITICAL + 1)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise BackendError(f"--dask slurm: {_first_line(error)}") from error
    cluster.scale(n=workers)
    return cluster


def _close(closing: Any, within_s: float) -> None:
    # A scheduler that is gone cannot be taken leave of.
    with suppress(OSError, RuntimeError, AttributeError, TimeoutError):
        closing.close(timeout=within_s)


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask says nothing by itself: what a user should know, a sweep tells."""
    import dask

    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _LOGGERS]
    loggers = [logging.getLogger(name) for name in {*names, *_LOGGERS}]
    levels = [logger.level for logger in loggers]
    silent = dict.fromkeys(_LOGGERS, logging.CRITICAL + 1)
    with warnings.catch_warnings(), dask.config.set({"distributed.logging": silent}):
        warnings.filterwarnings("ignore", module=rf"({'|'.join(_LOGGERS)}|dask)(\.|$)")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

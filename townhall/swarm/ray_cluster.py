"""Ray's own processes: started on this machine without telemetry and behind a token, found again by later commands, ended.

Ray's ports let every holder of the token run code. By default they are on the loopback interface (`RAY_START_HOOK`, for `ray start` itself
turns 127.0.0.1 into an address that others reach), and the token is in a file that only its owner can read.
"""

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import townhall
from townhall.swarm.errors import SwarmError

LOOPBACK = "127.0.0.1"
STARTED = "Ray runtime started"
START_PATIENCE, END_PATIENCE = 180.0, 60.0  # seconds
ATTEMPTS = 3  # to start
OBJECTS = 100 << 20  # bytes of Ray's object store: answers are small
KEPT_LOGS = 3  # of swarms that ended


@dataclass(frozen=True)
class RunningCluster:
    """What later commands have to know of the cluster that `up` started here."""

    address: str  # host:port of Ray's head
    pid: int  # of `ray start --block`
    url: str  # of the API
    scratch: str  # Ray's folder, with the logs of its processes
    grace: float

    @property
    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
            command = Path(f"/proc/{self.pid}/cmdline")  # another process may have the number by now
            return "ray" in command.read_text() if command.is_file() else True
        except OSError:
            return False


def folder() -> Path:
    """Where the swarm of this user keeps its state, its token and its logs."""
    from platformdirs import user_state_dir

    return Path(user_state_dir("townhall")) / "swarm"


def request_log() -> Path:
    """The front's log: a line for each request's beginning and end."""
    return folder() / "requests.jsonl"


def find() -> RunningCluster | None:
    """The cluster that runs here; None where there is none."""
    try:
        found = RunningCluster(**json.loads((folder() / "cluster.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.alive else None


def needed() -> RunningCluster:
    """The cluster that runs here; SwarmError where there is none."""
    if (found := find()) is None:
        raise SwarmError("no swarm runs on this machine; `townhall swarm up` starts one")
    return found


def environment(token: Path | None = None) -> dict[str, str]:
    """What Ray reads before it is imported: no telemetry, and the token."""
    path = [str(Path(townhall.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token or _token()),
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }


def stay_on_loopback(params: Any, head: bool) -> None:
    """Ray's hook between the flags of `ray start` and its processes."""
    params.node_ip_address = LOOPBACK


def start(url: str, grace: float, host: str = LOOPBACK, port: int = 0, cpus: int | None = None, gpus: int | None = None) -> RunningCluster:
    """Ray's head on this machine. SwarmError says what kept it from starting."""
    scratch = tempfile.mkdtemp(prefix="townhall-swarm-")  # short: Ray puts sockets below it
    port = port or free_port()
    flags = ["--head", f"--node-ip-address={host}", f"--port={port}", "--include-dashboard=false", f"--temp-dir={scratch}"]
    flags += [f"--object-store-memory={OBJECTS}", f"--ray-client-server-port={free_port()}"]
    flags += [f"--dashboard-agent-listen-port={free_port()}", "--min-worker-port=0", "--max-worker-port=0"]
    # no process that grows clusters by itself, none that prints the others' logs
    flags += ["--no-monitor", "--include-log-monitor=false", *_amounts(cpus, gpus)]
    hook = {"RAY_START_HOOK": f"{__name__}.stay_on_loopback"} if host == LOOPBACK else {}
    process = launch(flags, environment() | hook, Path(scratch) / "start.log")
    cluster = RunningCluster(f"{host}:{port}", process.pid, url, scratch, grace)
    part = folder() / "cluster.json.part"
    part.write_text(json.dumps(asdict(cluster)))
    part.replace(folder() / "cluster.json")
    return cluster


def launch(flags: list[str], environ: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """`ray start --block`, in a session of its own, when it has started.

    Ray gives its processes 30 seconds to start, which nothing can change: on a busy machine it is tried again.
    """
    for _ in range(ATTEMPTS - 1):
        with suppress(SwarmError):
            return _launch(flags, environ, log)
    return _launch(flags, environ, log)


def _launch(flags: list[str], environ: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *flags]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **environ}, start_new_session=True
        )
    ends = time.monotonic() + START_PATIENCE
    while STARTED not in (said := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > ends:
            end(process.pid)
            lines = said.strip().splitlines()
            raise SwarmError(f"Ray did not start: {lines[-1] if lines else 'it said nothing'} ({log})")
        time.sleep(0.1)
    return process


def connect(cluster: RunningCluster) -> None:
    """Make this process a client of the cluster. SwarmError where it cannot be reached."""
    os.environ.update(environment())
    try:
        import ray
        from ray._private import services
    except ModuleNotFoundError as error:
        raise missing(error) from error
    if cluster.address.startswith(LOOPBACK):  # where ray.init would look for it under this machine's other address
        services.resolve_ip_for_localhost = lambda host: host
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # what it says of its steps, `townhall swarm` says in its own words
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", configure_logging=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SwarmError(f"Ray at {cluster.address} cannot be reached: {error}; `townhall swarm down` clears it away") from error


def keep_replica_local() -> None:
    """To be called in a replica before Serve opens its port for other replicas, which it does on every interface: keeps it on loopback."""
    import ray
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() != LOOPBACK:
        return
    bind = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: bind(server, address.replace("[::]", LOOPBACK))


def disconnect() -> None:
    """Be no client any more: Ray ends a process whose cluster goes."""
    import ray

    ray.shutdown()


def join(address: str, token: Path, cpus: int | None = None, gpus: int | None = None) -> None:
    """Lend this machine to a cluster, in the foreground. SwarmError where its head cannot be reached."""
    scratch = tempfile.mkdtemp(prefix="townhall-swarm-")
    flags = [f"--address={address}", f"--temp-dir={scratch}", *_amounts(cpus, gpus)]
    process = launch(flags, environment(token), Path(scratch) / "start.log")
    try:
        process.wait()
    finally:
        end(process.pid)


def missing(error: ModuleNotFoundError) -> SwarmError:
    """The sentence for an extra that is not installed."""
    return SwarmError(f"a swarm needs the package {error.name}: pip install 'townhall[swarm]'")


def stop(cluster: RunningCluster) -> Path:
    """End Ray's processes and move their logs to the swarm's folder; returns where they are."""
    end(cluster.pid)
    logs = folder() / "logs" / Path(cluster.scratch).name
    for found in sorted(Path(cluster.scratch).glob("session_2*/logs")):
        shutil.copytree(found, logs, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(cluster.scratch, ignore_errors=True)
    (folder() / "cluster.json").unlink(missing_ok=True)
    kept = sorted((folder() / "logs").glob("*"), key=lambda path: path.stat().st_mtime)
    for old in kept[:-KEPT_LOGS]:
        shutil.rmtree(old, ignore_errors=True)
    return logs


def end(pid: int) -> None:
    """End `ray start --block` and all that it started: it lets Ray's processes go on SIGTERM, and what is left then is killed."""
    try:
        os.kill(pid, signal.SIGTERM)
        ends = time.monotonic() + END_PATIENCE
        while time.monotonic() < ends:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # collected where it is a child of ours
            os.killpg(pid, 0)  # its session: as long as one process of it is there
            time.sleep(0.1)
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _amounts(cpus: int | None, gpus: int | None) -> list[str]:
    return [f"--{name}={number}" for name, number in (("num-cpus", cpus), ("num-gpus", gpus)) if number is not None]


def _token() -> Path:
    """The file with this user's token, which is made once."""
    path = folder() / "token"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_suffix(".part"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        path.with_suffix(".part").replace(path)
    return path

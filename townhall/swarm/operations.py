"""What `townhall swarm` does, step by step: the cluster, the front, the models."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from townhall.swarm import ray_cluster
from townhall.swarm.errors import SwarmError
from townhall.swarm.ray_cluster import RunningCluster
from townhall.swarm.swarm_file import SwarmModel, SwarmPlan

Tell = Callable[[str], object]


def check(models: Sequence[SwarmModel]) -> None:
    """Refuse what `townhall serve` would refuse of each model's flags and files, before anything is started."""
    from townhall.swarm.replica import open_model

    for model in models:
        open_model(model, 1.0)


def up(
    plan: SwarmPlan,
    tell: Tell,
    cluster_host: str = ray_cluster.LOOPBACK,
    cluster_port: int = 0,
    cpus: int | None = None,
    gpus: int | None = None,
) -> RunningCluster:
    """Start the swarm of a plan, or make the one that runs be as the plan says."""
    from townhall.cli.serve import known_hosts, read_keys
    from townhall.server.serve_options import ServeOptions

    keys = read_keys(None, plan.api_key_file)
    hosts = known_hosts(plan.host, keys, plan.no_auth)
    check(plan.models)
    cluster, fresh = ray_cluster.find(), False
    url = f"http://{f'[{plan.host}]' if ':' in plan.host else plan.host}:{plan.port}"
    if cluster is None:
        _free(plan.host, plan.port)
        tell("starting Ray")
        cluster, fresh = ray_cluster.start(url, plan.grace, cluster_host, cluster_port, cpus, gpus), True
    elif cluster.url != url:
        raise SwarmError(f"a swarm runs at {cluster.url} already; `townhall swarm down` ends it, then it can move to {url}")
    try:
        ray_cluster.connect(cluster)
        from townhall.swarm import deployments

        if not deployments.front_answers():
            options = ServeOptions("swarm", (), keys=keys, hosts=hosts, cors=plan.cors, grace=plan.grace)
            deployments.start_front(options, str(ray_cluster.request_log()), plan.host, plan.port)
        running = _running(deployments.front().status.remote().result())
        for model in plan.models:
            if running.pop(model.name, None) != model.described():
                deploy(model, plan.grace, tell)
        for name in running:
            tell(f"taking {name} down")
            deployments.stop_model(name)
        deployments.front().refresh.remote().result()
    except BaseException:
        if fresh:
            ray_cluster.disconnect()
            logs = ray_cluster.stop(cluster)
            tell(f"the swarm was ended again; its logs are in {logs}")
        raise
    return cluster


def deploy(model: SwarmModel, grace: float, tell: Tell) -> None:
    """Start a model in the cluster that this process is a client of, or roll it over."""
    from townhall.swarm import deployments

    least, most = model.replicas
    tell(f"starting {model.name}: {least if least == most else f'{least} to {most}'} replica{'s' if most != 1 else ''}")
    deployments.start_model(model, grace)


def add(model: SwarmModel, tell: Tell) -> RunningCluster:
    """Start a model beside the others, or roll a running one over to what is said now."""
    check([model])
    cluster = ray_cluster.needed()
    ray_cluster.connect(cluster)
    from townhall.swarm import deployments

    deploy(model, cluster.grace, tell)
    deployments.front().refresh.remote().result()
    return cluster


def remove(name: str) -> None:
    """Take a model down when its answers are finished. SwarmError where there is none of that name."""
    cluster = ray_cluster.needed()
    ray_cluster.connect(cluster)
    from townhall.swarm import deployments, ray_client

    names = sorted(ray_client.deployed_models())
    if name not in names:
        raise SwarmError(f"no model {name[:80]!r} is in the swarm; there {'is' if len(names) == 1 else 'are'} {', '.join(names) or 'none'}")
    deployments.stop_model(name)
    deployments.front().refresh.remote().result()


def status() -> dict[str, Any]:
    """The cluster, its machines, its models and their replicas."""
    cluster = ray_cluster.needed()
    ray_cluster.connect(cluster)
    import ray

    from townhall.swarm import deployments, ray_client

    own = deployments.front().status.remote().result() if deployments.front_answers() else {"models": []}
    described = {one["name"]: one["replicas"] for one in own["models"]}
    models = [
        {"name": name, "state": str(found.status.value), "replicas": described.get(name, [])}
        for name, found in ray_client.deployed_models().items()
    ]
    nodes = [
        {"address": node["NodeManagerAddress"], "alive": node["Alive"], "cpus": node["Resources"].get("CPU", 0.0)}
        | {"gpus": node["Resources"].get("GPU", 0.0)}
        for node in ray.nodes()
    ]
    return {
        "url": f"{cluster.url}/v1",
        "cluster": cluster.address,
        "machines": nodes,
        "models": models,
        "requests": str(ray_cluster.request_log()),
        "logs": str(next(Path(cluster.scratch).glob("session_latest/logs"), cluster.scratch)),
    }


def _running(status: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    """The running models as they were described when they were started."""
    return {one["name"]: one["replicas"][0]["model"] if one["replicas"] else None for one in status["models"]}


def _free(host: str, port: int) -> None:
    from townhall.server.server import bind

    bind(host, port).close()

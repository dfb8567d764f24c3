"""The swarm as Ray Serve's applications: the front, and one for each model, so that each is rolled over by itself."""

from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, HTTPOptions, ProxyLocation, RequestRouterConfig
from ray.serve.schema import ApplicationStatus

from townhall.server.serve_options import Limits, ServeOptions
from townhall.swarm.errors import SwarmError
from townhall.swarm.front import Front, FrontSettings, ModelClient
from townhall.swarm.ray_client import APPLICATION, RayClient, deployed_models
from townhall.swarm.ray_cluster import keep_replica_local
from townhall.swarm.replica import ModelReplica
from townhall.swarm.swarm_file import SwarmModel

FRONT = "front"
HEALTH_PERIOD, HEALTH_PATIENCE = 2.0, 30.0  # seconds
MOST_AT_A_TIME = 10_000  # requests that the front holds
QUEUE = Limits().queue  # of each replica's own, beyond its slots


class SwarmFront(Front):
    """The front in a replica of Serve's."""

    def __init__(self, options: ServeOptions, log: str):
        keep_replica_local()
        self._known: dict[str, RayClient] = {}
        super().__init__(FrontSettings(options, log, self._deployed))

    def __serve_build_asgi_app__(self) -> Any:
        return self.application

    def _deployed(self) -> list[ModelClient]:
        names = deployed_models()
        self._known = {name: self._known.get(name) or RayClient(name) for name in names}
        return list(self._known.values())


def start_front(options: ServeOptions, log: str, host: str, port: int) -> None:
    """Serve's proxy on this machine, and the front behind it."""
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=HTTPOptions(host=host, port=port))
    actor = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
    deployment: Any = serve.deployment(
        name=FRONT,
        num_replicas=1,
        max_ongoing_requests=MOST_AT_A_TIME,
        ray_actor_options=actor,
        graceful_shutdown_timeout_s=options.grace + 5,
    )(serve.ingress()(SwarmFront))
    _run(deployment.bind(options, log), FRONT, "/", "the front")


def start_model(model: SwarmModel, grace: float) -> None:
    """Deploy a model, or roll a running one over to what is said now; returns when it answers. SwarmError where it cannot be started."""
    least, most = model.replicas
    scale: dict[str, Any] = {"num_replicas": least}
    if least < most:
        aim = model.queue or float(model.slots)
        scale = {"autoscaling_config": AutoscalingConfig(min_replicas=least, max_replicas=most, target_ongoing_requests=aim)}
    deployment: Any = serve.deployment(
        name=model.name,
        max_ongoing_requests=model.slots + QUEUE,
        max_queued_requests=QUEUE * most,
        ray_actor_options={"num_cpus": model.cpus, "num_gpus": model.gpus},
        health_check_period_s=HEALTH_PERIOD,
        health_check_timeout_s=HEALTH_PATIENCE,
        graceful_shutdown_timeout_s=grace + 5,
        request_router_config=RequestRouterConfig(
            request_router_class="townhall.swarm.prefix_router.PrefixRouter", request_router_kwargs={"slots": model.slots}
        ),
        **scale,
    )(ModelReplica)
    _run(deployment.bind(model, grace), APPLICATION + model.name, None, f"model {model.name}")


def stop_model(name: str) -> None:
    """Take a model down; its answers are finished, within the grace."""
    serve.delete(APPLICATION + name)


def _run(application: Any, name: str, route: str | None, what: str) -> None:
    try:
        serve.run(application, name=name, route_prefix=route)
    except RuntimeError as error:
        status = serve.status().applications.get(name)
        said = [one.message for one in status.deployments.values()] if status else []
        serve.delete(name)
        raise SwarmError(f"{what} cannot be started: {_last_line(' '.join(said) or str(error))}") from error


def front_answers() -> bool:
    """Is the front deployed and well?"""
    status = serve.status().applications.get(FRONT)
    return status is not None and status.status == ApplicationStatus.RUNNING


def front() -> Any:
    """The front's handle."""
    return serve.get_app_handle(FRONT)


def _last_line(text: str) -> str:
    """What a traceback comes to."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.partition(":")[0] and ":" in line]
    return (errors or lines or ["no reason was given"])[-1][:500]

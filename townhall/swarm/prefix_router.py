"""Ray Serve's choice of a replica, made by what a conversation begins with.

Serve copies this module's class into the process of each handle, so that what it shares with others has to be in a module of its own.
"""

from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from townhall.swarm import routing_state
from townhall.swarm.affinity import Affinity


class PrefixRouter(RequestRouter):
    """Ranks replicas by `Affinity`; one that cannot take a request gives way to the next in the order."""

    def initialize_state(self, slots: int = 8) -> None:
        """`slots`: conversations of each replica at a time."""
        self._state = routing_state.STATES[self.app_name] = routing_state.RouterState(Affinity(slots))

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """These are running now."""
        super().update_replicas(replicas)
        self._state.update([replica.replica_id.unique_id for replica in replicas])

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of one replica each."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        named = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        hint = routing_state.RouteHint.among(pending_request.args)
        return [[named[name]] for name in self._state.rank(hint, list(named))]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """The request went to that replica."""
        self._state.routed(routing_state.RouteHint.among(pending_request.args), replica_id.unique_id)

"""I1-I8 after each step, and the requests that the pods send each other: each counted, each refusal judged.

I1 no valid token is refused by a pod that takes requests. I2 no revoked token is accepted after that pod's ack (of a
deaf pod: after its canary). I3 one active, at most one pending, at most four trusted. I4 generations only grow. I5 what
signs is trusted by all. I6 some key can always sign. I7 one key per number. I8 (in `driver`) no private half in a write.
"""

from __future__ import annotations

from collections.abc import Iterable

from novacore_contracts.keyset import TRUSTED_KEYS_MAX
from tests.kit.rotationsim.pods import SimPod, Token
from tests.kit.rotationsim.world import World

RETRIED = ("kid_revoked", "denied", "token_expired")
MINTING_BACK_S = 30.0
TOLD_S = 10.0
FENCED_S = 15.0


class Watch:
    """What was seen in a run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[str] = []
        self.visible: list[str] = []  # requests that failed although their caller did all it could
        self.requests = 0
        self.trusted_max = 0
        self.old_accepted_at: dict[str, float] = {}  # revoked kid -> when a pod last accepted a token of it
        self.fresh_since: float | None = None
        self.minting_back_s = 0.0
        self.unable_since: float | None = None
        self.revoked_at = 0.0
        self._documents = 1
        self._generations: dict[str, int] = {}
        self._revoked: dict[str, int] = {}  # kid -> generation that revoked it
        self._unreached: dict[str, int] = {}  # pod that the operator did not reach at a revocation -> its generation
        self._down: Iterable[tuple[float, float]] = ()

    def step(self, *, down: Iterable[tuple[float, float]] = (), requests: bool = True) -> None:
        """Check everything. `down`: when no operator was there."""
        self._down = down
        self._new_documents()
        serving = [pod for pod in self.world.pods if pod.serves(self.world.now)]
        self._held_generations(serving)
        self._signing(serving)
        self._tokens(serving)
        self._revoked_tokens(serving)
        if requests:
            self._requests(serving)
        for number, kids in self.world.minted.items():
            if len(kids) > 1:
                self._violated(f"I7: {len(kids)} keys of number {number}")

    def _violated(self, what: str) -> None:
        self.violations.append(f"{self.world.now - self.world.documents[0][0]:.1f} s: {what}")

    # --- documents ------------------------------------------------------------------------------------------------

    def _new_documents(self) -> None:
        new = self.world.documents[self._documents :]
        for number, (_, document) in enumerate(new, start=self._documents):
            before = self.world.documents[number - 1][1]
            states = [key.state for key in document.keys]
            self.trusted_max = max(self.trusted_max, len(states))
            if states.count("active") != 1 or states.count("pending") > 1 or len(states) > TRUSTED_KEYS_MAX:
                self._violated(f"I3: {states}")
            if document.generation <= before.generation:
                self._violated(f"I4: generation {document.generation} after {before.generation}")
            if document.active_kid not in {key.kid for key in before.keys}:
                self.fresh_since = self.world.now
            for stone in document.tombstones:
                if stone.why == "revoked" and stone.kid not in self._revoked:
                    self.revoked_at = self.world.now
                    silent = [pod for pod in self.world.pods if not pod.reachable(self.world.now)]
                    self._unreached = {pod.uid: document.generation for pod in silent}
                if stone.why == "revoked":
                    self._revoked.setdefault(stone.kid, document.generation)
            back = self._revoked.keys() & {key.kid for key in document.keys}
            if back:
                self._violated(f"I2: {back} was revoked and came back")
        self._documents += len(new)

    def _held_generations(self, serving: list[SimPod]) -> None:
        for pod in serving:
            held = pod.view.document.generation if pod.view is not None else 0
            if held < self._generations.get(pod.uid, 0):
                self._violated(f"I4: {pod.name} fell to generation {held}")
            self._generations[pod.uid] = held

    # --- keys -----------------------------------------------------------------------------------------------------

    def _signing(self, serving: list[SimPod]) -> None:
        able = [pod for pod in serving if pod.signs and pod.view and pod.view.document.active_kid in pod.halves]
        signing = {pod.view.document.active_kid for pod in able if pod.view} - self._revoked.keys()
        told = [pod for pod in serving if pod.view is not None and not self._awaits_fence(pod)]
        untrusted = {kid for kid in signing for pod in told if pod.view and kid not in pod.view.trusted}
        if self.fresh_since is not None:
            took = self.world.now - self.fresh_since - self._downtime(self.fresh_since)
            active = self.world.document.active_kid
            if signing and not untrusted and active in signing:
                self.fresh_since, self.minting_back_s = None, max(self.minting_back_s, took)
            elif took > MINTING_BACK_S:
                self.fresh_since = None
                self._violated(f"I6: no trusted key signs {took:.0f} s after a fresh one was made active")
            return
        self._able(bool(signing) or not any(pod.signs for pod in serving))
        for kid in untrusted:
            pod = next(pod for pod in told if pod.view and kid not in pod.view.trusted)
            self._violated(f"I5: {kid} signs and {pod.name} does not trust it")

    def _able(self, able: bool) -> None:
        """After a revocation the signers need a push, which may be lost: a key that is good must sign again at once."""
        if able:
            self.unable_since = None
            return
        self.unable_since = self.world.now if self.unable_since is None else self.unable_since
        took = self.world.now - self.unable_since - self._downtime(self.unable_since)
        revoked_lately = self.world.now - self.revoked_at < TOLD_S + self._downtime(self.revoked_at)
        if not revoked_lately or took > TOLD_S:
            self._violated("I6: no signer can sign")

    def _downtime(self, since: float) -> float:
        return sum(min(end, self.world.now) - max(begin, since) for begin, end in self._down if end > since)

    # --- tokens ---------------------------------------------------------------------------------------------------

    def _valid(self, token: Token) -> bool:
        """Whether the newest document wants this token accepted by all."""
        document = self.world.document
        if token.kid in self._revoked or (self.fresh_since is not None and token.kid == document.active_kid):
            return False
        denied = {entry.sub: entry.iat_before or 0 for entry in document.deny}
        return self.world.now < token.exp - 1 and token.iat >= denied.get(token.sub, 0)

    def _awaits_fence(self, pod: SimPod) -> bool:
        """Whether a pod was out of reach when a key was revoked and has not heard yet: it is fenced within 15 s."""
        generation = self._unreached.get(pod.uid, 0)
        held = pod.view.document.generation if pod.view is not None else 0
        return held < generation and self.world.now - self.revoked_at <= FENCED_S + self._downtime(self.revoked_at)

    def _tokens(self, serving: list[SimPod]) -> None:
        """Every token that anybody carries would be accepted by every pod."""
        world = self.world
        for number, token in enumerate(world.guests):
            if world.now >= token.exp - 60 or token.kid in self._revoked:
                world.guests[number] = world.ask_token("guest") or token
        carried = [pod.token for pod in world.pods if pod.token is not None] + world.guests
        kids = {token.kid for token in carried if self._valid(token)}
        for pod in serving:
            if self._awaits_fence(pod):
                continue
            refused = kids - pod.view.trusted if pod.view is not None else kids
            for kid in refused:
                self._violated(f"I1: {pod.name} refuses valid tokens of {kid}")

    def _revoked_tokens(self, serving: list[SimPod]) -> None:
        for kid, generation in self._revoked.items():
            for pod in serving:
                if pod.view is None or kid not in pod.view.trusted:
                    continue
                self.old_accepted_at[kid] = self.world.now
                acked = pod.claimed is not None and pod.claimed.document.generation >= generation and not pod.deaf_s
                if acked or kid in pod.refused_canary_of:
                    self._violated(f"I2: {pod.name} acknowledged and accepts revoked {kid}")

    def _requests(self, serving: list[SimPod]) -> None:
        """Each pod that serves asks one other pod, with all that the shared client does about a 401."""
        world, now = self.world, self.world.now
        for caller in serving:
            if caller.is_due(now, world.draw) and now >= caller.retry_at:
                world.renew(caller)
            asked = serving[world.draw.randrange(len(serving))]
            self.requests += 1
            token = caller.token
            if token is None or now + caller.skew_s >= token.exp:
                if not world.renew(caller) or caller.token is None:
                    self._failed(caller, asked, "no token")
                    continue
                token = caller.token
            code = asked.verify(token, now)
            if code in RETRIED:
                world.happened["refused_once"] += 1
                if self._valid(token):
                    self._violated(f"I1: {asked.name} refuses a valid token of {caller.name}: {code}")
                caller.token = None
                world.renew(caller)
                token = caller.token
                code = asked.verify(token, now) if token is not None else "no token"
            if code == "ok" and token is not None:
                asked.last_ok[token.kid] = now + asked.skew_s
            else:
                self._failed(caller, asked, code)
                if token is not None and self._valid(token) and not self._awaits_fence(asked):
                    self._violated(f"I1: {asked.name} refuses a valid token of {caller.name}: {code}")

    def _failed(self, caller: SimPod, asked: SimPod, code: str) -> None:
        what = f"{caller.name} asked {asked.name}: {code}"
        self.visible.append(f"{self.world.now - self.world.documents[0][0]:.1f} s: {what}")
        if not self._revoked and not self.world.document.deny:
            self._violated(f"I1: a request failed without an emergency: {what}")

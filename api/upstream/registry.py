"""Which models there are and under which names: from the models file, which is read again when it
changes, or from one address, `API_MODEL_HOST_URL`, whose model answers to every name; beside it
`API_MODEL_HOST_PODS_URL` may name its pods, which are then chosen among.

A wrong file changes nothing: what was read last stays, one log line and a metric say so. A
request keeps the pool that it began with.
"""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

from api import logs
from api.errors import NotFound
from api.metrics import Metrics
from api.settings import Settings, SettingsError, env_name
from api.upstream.balancer import Policy
from api.upstream.models_file import AddressSpec, ModelsFileError, ModelSpec, first_key, load
from api.upstream.names import Names
from api.upstream.pool import Pool
from api.upstream.room import Room

logger = logging.getLogger("api.upstream")
NAMED = 20


class Registry:
    def __init__(self, settings: Settings, metrics: Metrics, policy: Policy | None = None) -> None:
        self._path = settings.models_file
        self._metrics = metrics
        self._hold_s, self._max_held = settings.hold_s, settings.max_held
        self._policy = policy or Policy()
        self._lookups = Names()
        self._pools: dict[str, Pool] = {}
        self._names: dict[str, Pool] = {}
        self._seen = _signature([self._path])
        if not self._path:
            specs: tuple[ModelSpec, ...] = (_only_model(settings),)
            self._use(specs, self._pools_for(specs))
            return
        try:
            specs = load(self._path)
        except ModelsFileError as error:
            raise SettingsError(f"{env_name('models_file')}: {self._path}: {error}") from error
        self._use(specs, self._pools_for(specs))

    @property
    def lenient(self) -> bool:
        """One host whose models are its own business; any name goes there."""
        return not self._path

    @property
    def pools(self) -> tuple[Pool, ...]:
        """One for each model, in the file's order; the first answers requests that name none."""
        return tuple(self._pools.values())

    def find(self, name: str | None) -> Pool:
        if name is None or self.lenient:
            return next(iter(self._pools.values()))
        pool = self._names.get(name)
        if pool is None:
            raise _unknown_model(list(self._pools))
        return pool

    def canonical(self, name: str | None) -> str | None:
        """What a model is called that may be asked by an alias or, with None, by no name."""
        if name is None:
            return next(iter(self._pools))
        pool = self._names.get(name)
        return pool.name if pool else None

    def fallback_of(self, pool: Pool) -> Pool | None:
        return self._names.get(pool.spec.fallback) if pool.spec.fallback else None

    def names_of(self, pool: Pool) -> tuple[str, ...]:
        return (pool.spec.name, *pool.spec.aliases)

    # ---- reading again --------------------------------------------------------------------------

    async def reload_when_changed(self) -> None:
        if not self._path:
            return
        signature = await asyncio.to_thread(_signature, self._files())
        if signature == self._seen:
            return
        self._seen = signature
        try:
            specs = await asyncio.to_thread(load, self._path)
        except ModelsFileError as error:
            self._metrics.models_file_reloads.labels("refused").inc()
            self._metrics.models_file_good.set(0)
            self._tell(logging.ERROR, "models file refused, the old one stays", reason=str(error))
        else:
            pools = self._pools_for(specs)
            # A name that nothing has looked up yet would be a model without a host. Whatever keeps
            # it from being looked up, the next round of look-ups tells.
            looks = (pools[spec.name].expect(spec) for spec in specs)
            await asyncio.gather(*looks, return_exceptions=True)
            self._use(specs, pools)
            self._metrics.models_file_reloads.labels("taken").inc()
            self._tell(logging.INFO, "models file taken", models=list(self._pools))

    def _files(self) -> list[str]:
        """The models file and the files of keys that it names. When it names others than before,
        all are read once more: a key may have changed since it was read.
        """
        specs = (pool.spec for pool in self._pools.values())
        keys = {one.key_file for spec in specs for one in spec.addresses if one.key_file}
        return [self._path, *sorted(keys)]

    def _tell(self, level: int, message: str, **values: object) -> None:
        logs.event(logger, level, message, file=self._path, **values)

    def _pools_for(self, specs: tuple[ModelSpec, ...]) -> dict[str, Pool]:
        """Those that there are, and new ones that are not in use yet."""
        return {spec.name: self._pools.get(spec.name) or self._made(spec) for spec in specs}

    def _made(self, spec: ModelSpec) -> Pool:
        room = Room(spec.name, self._metrics, hold_s=self._hold_s, most=self._max_held)
        return Pool(spec, self._metrics, self._policy, self._lookups, room)

    def _use(self, specs: tuple[ModelSpec, ...], pools: dict[str, Pool]) -> None:
        gone = [pool for name, pool in self._pools.items() if name not in pools]
        self._pools = pools
        for spec in specs:
            pools[spec.name].update(spec)
        for pool in gone:
            pool.close()
        self._names = dict(self._all_names())
        self._metrics.models_file_good.set(1)

    def _all_names(self) -> Iterator[tuple[str, Pool]]:
        for pool in self._pools.values():
            for name in self.names_of(pool):
                yield name, pool


def _only_model(settings: Settings) -> ModelSpec:
    url, key = settings.model_host_url.rstrip("/"), first_key(settings.model_host_key)
    pods = settings.model_host_pods_url.rstrip("/")
    if not pods:
        return ModelSpec("", (AddressSpec(url, key=key),))
    return ModelSpec("", (AddressSpec(pods, resolve=True, key=key, standby=url),))


def _unknown_model(names: list[str]) -> NotFound:
    shown = ", ".join(names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return NotFound(
        f"There is no such model; there are {shown}{more}", code="model_not_found", param="model"
    )


def _signature(paths: list[str]) -> list[tuple[int, ...] | None]:
    """What changes when one of the files does, also when a ConfigMap's or a Secret's link is turned
    to another one.
    """
    return [_signature_of(path) for path in paths]


def _signature_of(path: str) -> tuple[int, ...] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_dev, found.st_size

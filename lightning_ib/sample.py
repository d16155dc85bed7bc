"""A sample of the rows of a pass, for estimators that need the rows themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_ib.functional.discretise import scrambled

# A process may show a few samples twice, to even out the shares; more are kept than asked for until those are known.
_SPARE = 8


class Reservoir:
    """A uniform sample without replacement of the samples of a pass, the same at every pass over the same data.

    Every sample has a key, hashed from its place in the pass, and those with the smallest keys are kept (bottom-k
    sampling; Cohen & Kaplan 2007). So which samples are chosen depends on neither batch size nor how the places are
    spread over processes, and no random state is touched. The choice is made on the host, from places alone: nothing
    waits for the device, and only rows that are chosen are copied. At most twice ``size`` rows are held at a time.

    Args:
        size: how many samples to keep at most.
        rank: which of several processes this is: it shows the places rank, rank + world, ….
        world: how many processes there are.
    """

    def __init__(self, size: int, rank: int = 0, world: int = 1) -> None:
        self.size, self.rank, self.world = size, rank, world
        self._seen = 0
        self._places = torch.empty(0, dtype=torch.int64)
        self._rows: dict[str, list[Tensor]] = {}
        self._bound: int | None = None
        self._chosen: tuple[int, Tensor] | None = None

    def choose(self, n: int) -> Tensor:
        """Which of the next ``n`` samples to keep, as indices ``(M,)``; the same until :meth:`keep` is called."""
        if self._chosen is None or self._chosen[0] != n:
            keys = scrambled(self._places_of(n))
            chosen = torch.arange(n) if self._bound is None else (keys <= self._bound).nonzero().squeeze(1)
            self._chosen = n, chosen
        return self._chosen[1]

    def _places_of(self, n: int) -> Tensor:
        return self.rank + self.world * torch.arange(self._seen, self._seen + n, dtype=torch.int64)

    def keep(self, n: int, rows: Mapping[str, Tensor]) -> None:
        """Keep the rows that were chosen of the next ``n`` samples, variable by variable, and go on to those after."""
        chosen, places = self.choose(n), self._places_of(n)
        self._seen, self._chosen = self._seen + n, None
        if not len(chosen):
            return
        self._places = torch.cat([self._places, places[chosen]])
        for name, values in rows.items():
            self._rows.setdefault(name, []).append(values)
        if len(self._places) > 2 * self.size:
            self._prune(self.size + _SPARE)

    def trim(self, n: int) -> None:
        """Leave out what came after the first ``n`` samples of this process."""
        if self._seen > n:
            self._select((self._places < self.rank + self.world * n).nonzero().squeeze(1))

    def drawn(self, gather: Callable[[Any], list[Any]] | None = None) -> dict[str, Tensor]:
        """The sample, variable by variable, in one order for every process and batch size.

        Args:
            gather: gives what every process has, in the order of their ranks; ``None`` where there is one process.
        """
        own = self._places
        everywhere = own if gather is None else torch.cat(gather(own))
        least = everywhere[scrambled(everywhere).argsort()[: self.size]]
        self._select(torch.isin(own, least).nonzero().squeeze(1))
        rows = {name: torch.cat(chunks) for name, chunks in self._rows.items()}
        places = self._places
        if gather is not None:
            devices = {name: values.device for name, values in rows.items()}
            shares = gather((places, {name: values.cpu() for name, values in rows.items()}))
            places = torch.cat([share[0] for share in shares])
            names: Iterable[str] = dict.fromkeys(name for share in shares for name in share[1])
            rows = {name: torch.cat([share[1][name] for share in shares if name in share[1]]) for name in names}
            rows = {name: values.to(devices.get(name, values.device)) for name, values in rows.items()}
        order = scrambled(places).argsort()
        return {name: values[order.to(values.device)] for name, values in rows.items()}

    def _prune(self, size: int) -> None:
        keys = scrambled(self._places)
        smallest = keys.argsort()[:size].sort().values
        self._select(smallest)
        self._bound = int(keys[smallest].max())

    def _select(self, kept: Tensor) -> None:
        if len(kept) == len(self._places):
            return
        self._places = self._places[kept]
        self._rows = {
            name: [torch.cat(chunks)[kept.to(chunks[0].device, non_blocking=True)]]
            for name, chunks in self._rows.items()
        }

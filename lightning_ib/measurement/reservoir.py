"""A sample of the rows of a pass, for estimators that need the rows themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_ib.functional.checks import moved
from lightning_ib.functional.discretize.ids import splitmix64

# A distributed sampler may pad with repeated samples; extra rows are kept until the padding is known.
_SPARE = 8

# After so many more rows, as a share of the sample, the bound for the keys of further ones is lowered.
_SHARE = 0.1


Gather = Callable[[Any], list[Any]]


class Reservoir:
    """A uniform sample without replacement of the samples of a pass, the same at every pass over the same data.

    Every sample has a key, hashed from its place in the pass, and those with the smallest keys are kept (bottom-k
    sampling; Cohen & Kaplan 2007). The choice is independent of batch size, of how the places are spread over
    processes, and of random state. It is made on the host, from places alone: the device runs on asynchronously,
    and only rows that are chosen are copied. At most three times ``size`` rows are held.

    Args:
        size: how many samples to keep at most.
        rank: which of several processes this is: it shows the places rank, rank + world, ….
        world: how many processes there are.
        partial: whether :meth:`keep` may get a ``valid`` mask that drops some of the chosen samples: candidates are
            then kept until it is known.
    """

    def __init__(self, size: int, rank: int = 0, world: int = 1, *, partial: bool = False) -> None:
        self.size, self.rank, self.world, self.partial = size, rank, world, partial
        self._seen = 0
        self._places = torch.empty(0, dtype=torch.int64, device="cpu")
        self._rows: dict[str, list[Tensor | Exception]] = {}
        self._bound: int | None = None
        self._bound_at = size + _SPARE  # lowered once there are more rows than this
        self._chosen: tuple[int, Tensor] | None = None

    def choose(self, n: int) -> Tensor:
        """Which of the next ``n`` samples to keep, as indices ``(M,)``; the same until :meth:`keep` is called."""
        if self._chosen is None or self._chosen[0] != n:
            most = n if self.partial else self.size + _SPARE
            chosen = torch.arange(n, device="cpu")
            if self._bound is not None or n > most:
                keys = splitmix64(self._places_of(n))
                chosen = chosen if self._bound is None else chosen[keys <= self._bound]
                if len(chosen) > most:
                    chosen = chosen[keys[chosen].argsort()[:most]].sort().values
            self._chosen = n, chosen
        return self._chosen[1]

    def _places_of(self, n: int) -> Tensor:
        return self.rank + self.world * torch.arange(self._seen, self._seen + n, dtype=torch.int64, device="cpu")

    def keep(self, n: int, rows: Mapping[str, Tensor], valid: Tensor | None = None) -> None:
        """Keep the rows that were chosen of the next ``n`` samples, variable by variable, and go on to those after.

        Args:
            n: how many samples come.
            rows: the rows of the chosen ones, by variable.
            valid: bool ``(n,)``, on the host: which samples count; all of them where it is left out.
        """
        chosen, places = self.choose(n), self._places_of(n)
        self._seen, self._chosen = self._seen + n, None
        if valid is not None:
            counts = valid[chosen].nonzero().squeeze(1)
            chosen = chosen[counts]
            rows = {name: values[moved(counts, values.device)] for name, values in rows.items()}
        if not len(chosen):
            return
        self._places = torch.cat([self._places, places[chosen]])
        for name, values in rows.items():
            self._rows.setdefault(name, []).append(values)
        if len(self._places) > 2 * self.size:
            self._prune(self.size + _SPARE)
        elif len(self._places) > self._bound_at:
            # Rows above it can no longer be among the smallest: those to come are spared their copy and sketch.
            self._lower_bound(splitmix64(self._places).kthvalue(self.size + _SPARE).values)

    def drop(self, name: str) -> None:
        """Forget a variable."""
        self._rows.pop(name, None)

    def trim(self, n: int) -> None:
        """Drop the rows after the first ``n`` samples of this process: the few that pad a distributed sampler.

        Replacements come from the extra rows only: if many are dropped, fewer than ``size`` stay.
        """
        if self._seen > n:
            self._select((self._places < self.rank + self.world * n).nonzero().squeeze(1))

    def drawn(self, gather: Gather | None = None) -> dict[str, Tensor | Exception]:
        """The sample, variable by variable, in one order for every process and batch size.

        A variable with rows of different shapes maps to the error that says so.

        Args:
            gather: returns the objects of every process, in the order of their ranks; ``None`` for a single process.
                Code between two calls of it is free of failures.
        """
        own = self._places
        everywhere = own if gather is None else torch.cat(gather(own))
        least = everywhere[splitmix64(everywhere).argsort()[: self.size]]
        chosen = torch.isin(own, least).nonzero().squeeze(1)
        rows = {name: _picked(chunks, chosen) for name, chunks in self._rows.items()}
        places = own[chosen]
        if gather is not None:
            devices = {name: values.device for name, values in rows.items() if isinstance(values, Tensor)}
            shares = gather((places, {name: _on_host(values) for name, values in rows.items()}))
            places = torch.cat([share[0] for share in shares])
            names: Iterable[str] = dict.fromkeys(name for share in shares for name in share[1])
            rows = {name: _joined([share[1][name] for share in shares if name in share[1]]) for name in names}
            rows = {
                name: values.to(devices[name]) if isinstance(values, Tensor) and name in devices else values
                for name, values in rows.items()
            }
        order = splitmix64(places).argsort()
        # A variable with rows in some processes only does not come sample by sample.
        rows = {k: values for k, values in rows.items() if isinstance(values, Exception) or len(values) == len(places)}
        return {
            name: values[order.to(values.device)] if isinstance(values, Tensor) else values
            for name, values in rows.items()
        }

    def _prune(self, size: int) -> None:
        keys = splitmix64(self._places)
        smallest = keys.argsort()[:size].sort().values
        self._select(smallest)
        self._lower_bound(keys[smallest].max())

    def _lower_bound(self, key: Tensor) -> None:
        self._bound = int(key)
        self._bound_at = len(self._places) + int(_SHARE * self.size)

    def _select(self, kept: Tensor) -> None:
        if len(kept) == len(self._places):
            return
        self._places = self._places[kept]
        picked = {name: _picked(chunks, kept) for name, chunks in self._rows.items()}
        self._rows = {name: [values] for name, values in picked.items()}


def _picked(chunks: list[Tensor | Exception], kept: Tensor) -> Tensor | Exception:
    whole = _joined(chunks)
    return whole if isinstance(whole, Exception) else whole[moved(kept, whole.device)]


def _joined(chunks: list[Tensor | Exception]) -> Tensor | Exception:
    """The rows in one tensor, or the error of rows that differ in shape, now or before."""
    for chunk in chunks:
        if isinstance(chunk, Exception):
            return chunk
    shapes = {tuple(chunk.shape[1:]) for chunk in chunks if isinstance(chunk, Tensor) and len(chunk)}
    if len(shapes) > 1:
        return ValueError(
            f"its samples have different shapes, {' and '.join(map(str, sorted(shapes)))}, and rows need one."
        )
    return torch.cat([chunk for chunk in chunks if isinstance(chunk, Tensor) and (len(chunk) or not shapes)])


def _on_host(values: Tensor | Exception) -> Tensor | Exception:
    return values.cpu() if isinstance(values, Tensor) else values

"""The sample of a pass: uniform, the same at every pass, and however its samples come."""

import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from lightning_ib.binning.quantizer import CellQuantizer
from lightning_ib.functional import sketch
from lightning_ib.measurement.reservoir import Reservoir
from lightning_ib.measurement.sampled import SampledLayers

WIDTH = 7  # of the rows here, and of nothing else


def row_of(places):
    """What stands at a place: told apart from what stands at any other."""
    return places.float()[:, None] + torch.arange(WIDTH) / 16


def show(reservoir, places, sizes):
    """Show the samples at these places, in batches of these sizes, again and again until all are shown."""
    k = 0
    while len(places):
        part, places = places[: sizes[k % len(sizes)]], places[sizes[k % len(sizes)] :]
        chosen = reservoir.choose(len(part))
        reservoir.keep(len(part), {"row": row_of(part)[chosen], "place": part[chosen], "half": part[chosen] % 2 == 0})
        k += 1
    return reservoir


def sample(n, size, sizes=(64,)):
    return show(Reservoir(size), torch.arange(n), sizes).drawn()


def in_processes(world, of_rank):
    """What ``of_rank(rank, gather)`` gives in processes that wait for one another, a thread each."""
    shared, barrier = [None] * world, threading.Barrier(world, timeout=20)

    def gather_as(rank):
        def gather(own):
            barrier.wait()
            shared[rank] = own
            barrier.wait()
            return list(shared)

        return gather

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(lambda rank: of_rank(rank, gather_as(rank)), range(world)))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_sample_has_as_many_rows_as_asked_for_and_no_sample_twice():
    drawn = sample(3000, 200)
    assert {name: tuple(values.shape) for name, values in drawn.items()} == {
        "row": (200, WIDTH),
        "place": (200,),
        "half": (200,),
    }
    assert len(drawn["place"].unique()) == 200
    assert drawn["place"].min() >= 0
    assert drawn["place"].max() < 3000


@pytest.mark.parametrize("n", [4_000, 20_000, 60_000])
@pytest.mark.parametrize(
    "part", [lambda places, n: places * 10 // n, lambda places, n: places % 10, lambda places, n: places // 64 % 10]
)
def test_every_part_of_a_pass_has_its_share(n, part):
    """Deciles, what comes in turn (as labels often do), and blocks as long as a batch."""
    whole = torch.bincount(part(torch.arange(n), n), minlength=10).double()
    share = torch.bincount(part(sample(n, 2000)["place"], n), minlength=10).double()
    assert stats.chisquare(share, whole * share.sum() / n).pvalue > 0.001


def test_a_newcomer_is_taken_as_often_as_one_in_all_seen():
    """The k-th place is in a sample of 50 of the first k with probability 50/k; once out, it never comes back."""
    size, lengths = 50, range(51, 1200)
    samples = [set(sample(n, size, (n,))["place"].tolist()) for n in lengths]
    taken = sum(n - 1 in kept for n, kept in zip(lengths, samples))
    p = np.array([size / n for n in lengths])
    assert abs(taken - p.sum()) < 3 * np.sqrt((p * (1 - p)).sum())
    for n, before, after in zip(lengths[1:], samples, samples[1:]):
        assert after - before <= {n - 1}


def test_every_place_is_in_some_sample_of_its_pass():
    """Each of the first hundred is sampled at some length and left out at another, but for the longest-lived few."""
    kept_up_to = dict.fromkeys(range(100), 0)
    for n in range(100, 4000, 50):
        for place in sample(n, 100, (n,))["place"].tolist():
            if place in kept_up_to:
                kept_up_to[place] = n
    assert min(kept_up_to.values()) == 100
    lasted = np.array(list(kept_up_to.values()))
    for n in (400, 1000, 2000):  # 100/n of them are left
        assert stats.binomtest(int((lasted >= n).sum()), 100, 100 / n).pvalue > 0.001


def test_the_same_at_every_pass():
    assert same(sample(5000, 300), sample(5000, 300))


def test_it_can_be_drawn_twice():
    reservoir = show(Reservoir(30), torch.arange(500), (64,))
    assert same(reservoir.drawn(), reservoir.drawn())


def test_it_can_go_on_after_it_was_drawn():
    reservoir = show(Reservoir(30), torch.arange(100), (16,))
    reservoir.drawn()
    assert same(show(reservoir, torch.arange(100, 500), (16,)).drawn(), sample(500, 30))


@given(st.integers(0, 700), st.integers(1, 120), st.lists(st.integers(1, 150), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_batches_make_no_difference(n, size, sizes):
    assert same(sample(n, size, sizes), sample(n, size, (max(1, n),)))


@given(
    st.integers(1, 400),
    st.integers(1, 60),
    st.integers(2, 3),
    st.lists(st.integers(1, 50), min_size=3, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_the_processes_make_no_difference(n, size, world, sizes):
    """Samples dealt in turn, as Lightning deals them; every process has the sample of one that sees all."""

    def of_rank(rank, gather):
        return show(Reservoir(size, rank, world), torch.arange(n)[rank::world], (sizes[rank],)).drawn(gather)

    alone = sample(n, size)
    assert all(same(drawn, alone) for drawn in in_processes(world, of_rank))


@pytest.mark.parametrize(("n", "world"), [(83, 3), (50, 2), (7, 3), (100, 3)])
@pytest.mark.parametrize("size", [5, 40, 1000])
def test_samples_shown_twice_to_even_out_the_shares_are_left_out(n, world, size):
    """As DistributedSampler does: the first samples are shown again at the end."""
    padded = torch.arange(-(-n // world) * world) % n

    def of_rank(rank, gather):
        reservoir = show(Reservoir(size, rank, world), padded[rank::world], (8,))
        reservoir.trim(len(range(rank, n, world)))
        return reservoir.drawn(gather)

    alone = sample(n, size)
    assert all(same(drawn, alone) for drawn in in_processes(world, of_rank))


@pytest.mark.parametrize("shares", [(90, 0), (0, 90), (40, 0, 50), (200, 3, 31)])
@pytest.mark.parametrize("size", [12, 60, 1000])
def test_uneven_shares(shares, size):
    """However many samples a process has, none at all among them: all get one sample, whole rows, none twice."""
    starts = [sum(shares[:rank]) for rank in range(len(shares))]

    def of_rank(rank, gather):
        own = torch.arange(starts[rank], starts[rank] + shares[rank])
        return show(Reservoir(size, rank, len(shares)), own, (8,)).drawn(gather)

    first, *others = in_processes(len(shares), of_rank)
    assert all(same(first, other) for other in others)
    assert len(first["place"]) == len(first["place"].unique()) == min(size, sum(shares))
    assert torch.equal(first["row"], row_of(first["place"]))


def test_a_short_share_is_sampled_as_densely_as_a_long_one():
    shares = (3000, 1000)

    def of_rank(rank, gather):
        own = torch.full((shares[rank],), rank)
        return show(Reservoir(800, rank, 2), own, (50,)).drawn(gather)

    of = in_processes(2, of_rank)[0]["place"]
    # Places up to 2000 hold samples of both, those after that of the first alone.
    assert stats.binomtest(int((of == 1).sum()), 800, 0.25).pvalue > 0.001


def test_the_rows_of_all_variables_stay_together():
    for size in (10, 100, 5000):
        drawn = sample(2000, size, (17, 300, 1))
        assert torch.equal(drawn["row"], row_of(drawn["place"]))
        assert torch.equal(drawn["half"], drawn["place"] % 2 == 0)


def test_rows_keep_their_kind():
    reservoir = Reservoir(5)
    chosen = reservoir.choose(40)
    rows = {"half": torch.rand(40, 2, 3).half(), "double": torch.rand(40).double(), "label": torch.arange(40)}
    reservoir.keep(40, {name: values[chosen] for name, values in rows.items()})
    kinds = {name: (values.dtype, tuple(values.shape)) for name, values in reservoir.drawn().items()}
    assert kinds == {
        "half": (torch.float16, (5, 2, 3)),
        "double": (torch.float64, (5,)),
        "label": (torch.int64, (5,)),
    }


@pytest.mark.parametrize("size", [300, 301, 100_000])
def test_more_room_than_samples_keeps_all(size):
    assert sample(300, size)["place"].sort().values.tolist() == list(range(300))


def test_nothing_shown_is_an_empty_sample():
    assert Reservoir(5).drawn() == {}
    assert in_processes(2, lambda rank, gather: Reservoir(5, rank, 2).drawn(gather)) == [{}, {}]


def test_trimming_what_was_not_shown_changes_nothing():
    reservoir = show(Reservoir(1000), torch.arange(60), (7,))
    reservoir.trim(60)
    reservoir.trim(1000)
    assert same(reservoir.drawn(), sample(60, 1000))


def rows_held():
    return sum(len(found) for found in gc.get_objects() if type(found) is Tensor and found.shape[1:] == (WIDTH,))


@pytest.mark.slow
def test_little_more_than_twice_the_sample_is_ever_held():
    gc.collect()
    before, most, size, batch = rows_held(), 0, 40, 25
    reservoir = Reservoir(size)
    for k in range(8):
        show(reservoir, torch.arange(k * batch, (k + 1) * batch), (batch,))
        most = max(most, rows_held() - before)
    assert size <= most <= 2 * size
    assert len(reservoir.drawn()["row"]) == size


def test_no_more_is_copied_of_a_large_first_batch():
    assert len(Reservoir(40).choose(5000)) <= 80


def test_fewer_and_fewer_rows_are_copied():
    """What is not chosen is never touched: after n samples about one in n/size is."""
    reservoir, copied = Reservoir(50), []
    for k in range(100):
        chosen = reservoir.choose(100)
        copied.append(len(chosen))
        places = torch.arange(k * 100, (k + 1) * 100)
        reservoir.keep(100, {"row": row_of(places[chosen])})
    assert sum(copied[:2]) >= 100
    assert sum(copied[50:]) < 50 * 2.5  # of 5000


def test_choosing_again_before_keeping_changes_nothing():
    reservoir = show(Reservoir(10), torch.arange(100), (10,))
    first = reservoir.choose(40)
    reservoir.choose(13)
    assert torch.equal(reservoir.choose(40), first)


def test_no_random_state_is_touched():
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    sample(1000, 50)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_no_random_state_is_heeded():
    first = sample(1000, 50)
    torch.manual_seed(99)
    assert same(first, sample(1000, 50))


@pytest.mark.parametrize(("smaller", "larger"), [(1, 2), (10, 300), (299, 300)])
def test_a_smaller_sample_is_the_beginning_of_a_larger_one(smaller, larger):
    few, many = sample(2000, smaller), sample(2000, larger, (1, 200))
    assert same(few, {name: values[:smaller] for name, values in many.items()})


def test_a_variable_that_is_dropped_is_gone_and_the_others_stay():
    reservoir = show(Reservoir(30), torch.arange(500), (64,))
    reservoir.drop("half")
    reservoir.drop("never there")
    expected = sample(500, 30)
    assert same(reservoir.drawn(), {name: expected[name] for name in ("row", "place")})


@pytest.mark.parametrize("n", [3, 400])
def test_rows_of_different_shapes_are_an_error_in_their_place(n):
    """However early or late they are put together, and whatever came after."""
    reservoir = Reservoir(20)
    for width in (2, 3, 2):
        chosen = reservoir.choose(n)
        reservoir.keep(n, {"row": torch.zeros(n, width)[chosen], "place": torch.arange(n)[chosen]})
    drawn = reservoir.drawn()
    assert len(drawn["place"]) == min(20, 3 * n)
    sentence = r"its samples have different shapes, \(2,\) and \(3,\), and rows need one\."
    with pytest.raises(ValueError, match=sentence):
        raise drawn["row"]


def layers_of(n, max_samples, raw_samples, batch=50):
    """What is sampled of a wide layer, a scalar one and the labels of n samples."""
    sampled = SampledLayers(max_samples, raw_samples, with_input=True)
    x, y = torch.arange(n).float(), torch.arange(n) % 7
    for some, labels in zip(x.split(batch), y.split(batch)):
        wide = some[:, None, None].expand(-1, 20, 10)
        chosen = {"wide": sampled.choose(wide, None), "scalar": sampled.choose(some, CellQuantizer())}
        sampled.keep(len(some), chosen, {"y": labels, "x": some}, None)
    return sampled


@pytest.mark.parametrize("raw_samples", [0, 30, 100])
@pytest.mark.parametrize("batch", [1, 64, 1000])
def test_all_that_is_sampled_of_a_sample_stays_together(batch, raw_samples):
    drawn = layers_of(1000, 100, raw_samples, batch).drawn(shared=False)
    scalar = drawn.layers["scalar"]
    assert (drawn.n, scalar.shape, drawn.layers["wide"].shape) == (100, (100, 1), (100, 128))
    assert torch.equal(drawn.layers["wide"], sketch(scalar.expand(-1, 200)))
    assert torch.equal(drawn.others["y"], scalar[:, 0].long() % 7)
    assert torch.equal(drawn.others["x"], scalar)
    assert set(drawn.raw) == ({"wide", "scalar"} if raw_samples else set())
    if raw_samples:
        assert torch.equal(drawn.raw["scalar"], scalar[:raw_samples, 0])
        assert torch.equal(drawn.raw["wide"], scalar[:raw_samples, :, None].expand(-1, 20, 10))


def test_what_was_sampled_shares_no_memory_with_the_batch():
    sampled = SampledLayers(100, 100, with_input=True)
    x, y = torch.ones(30, 3), torch.ones(30).long()
    sampled.keep(30, {"layer": sampled.choose(x, None)}, {"x": x, "y": y}, None)
    x.zero_(), y.zero_()
    drawn = sampled.drawn(shared=False)
    for rows in (drawn.layers["layer"], drawn.raw["layer"], drawn.others["x"], drawn.others["y"]):
        assert rows.min() == 1


def test_a_pass_begins_anew_and_what_came_last_may_be_left_out():
    sampled = layers_of(1000, 100, 10)
    first = sampled.drawn(shared=False)
    sampled.trim(1000)
    assert torch.equal(sampled.drawn(shared=False).layers["scalar"], first.layers["scalar"])
    sampled.reset()
    assert sampled.drawn(shared=False).n == 0
    short = layers_of(60, 100, 10)
    assert short.drawn(shared=False).n == 60
    short.trim(57)
    assert torch.equal(
        short.drawn(shared=False).layers["scalar"], layers_of(57, 100, 10).drawn(shared=False).layers["scalar"]
    )


def test_an_input_that_does_not_come_sample_by_sample_is_forgotten():
    sampled = layers_of(100, 50, 0)
    assert set(sampled.drawn(shared=False).others) == {"x", "y"}
    sampled.forget_input()
    assert set(sampled.drawn(shared=False).others) == {"y"}


@pytest.mark.parametrize("batch", [10, 100])
def test_hardly_more_rows_are_copied_than_a_sample_of_a_stream_needs(batch):
    """A sample k of n needs k (1 + ln(n / k)) rows on average: those among the k smallest when they come."""
    reservoir, size, n, copied = Reservoir(1000), 1000, 10_000, 0
    for start in range(0, n, batch):
        chosen = reservoir.choose(batch)
        copied += len(chosen)
        reservoir.keep(batch, {"row": row_of(torch.arange(start, start + batch)[chosen])})
    assert copied < 1.15 * size * (1 + np.log(n / size))
    assert len(reservoir.drawn()["row"]) == size

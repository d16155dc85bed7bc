"""Ids of rows: equal where rows are, spread evenly, and the same in every release."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_ib.functional import NOT_FINITE, bucketize, hash_table, quantiles, row_ids
from tests.helpers.counting import law
from tests.helpers.samples import generator

GOLDEN, SEED, MASK = 0x9E3779B97F4A7C15, 0x243F6A8885A308D3, 2**64 - 1


def table_entry(coordinate, code):
    """SplitMix64 in Python's own integers."""
    x = (((coordinate << 32) + code + 1) * GOLDEN + SEED) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def signed(x):
    x &= MASK
    return x - 2**64 if x >= 2**63 else x


def test_ids_are_what_they_were_in_every_release():
    # Changing one of these makes checkpoints and histories of two releases disagree. Do not.
    assert hash_table(n_coordinates=3, n_codes=4).tolist() == [
        [3220344897584144929, -7775742627565762167, -2497992216553849341, -2616677897587316736],
        [-744243833831076375, 8918944505510792617, 4561517671403551720, -572265915339843722],
        [-2143560711541882022, 1229439247444673343, 1120975740860474767, 3390498418470400347],
    ]
    rows = torch.tensor([[0, 0, 0], [1, 2, 3], [3, 2, 1]])
    assert row_ids(rows, table=hash_table(n_coordinates=3, n_codes=4)).tolist() == [
        332540352211186532,
        176273462308189900,
        3174279021260908327,
    ]
    assert NOT_FINITE == -9223372036854775808


def test_the_table_is_splitmix64_and_the_id_a_sum():
    table = hash_table(n_coordinates=300, n_codes=256)
    for coordinate, code in [(0, 0), (0, 255), (1, 0), (7, 13), (299, 255)]:
        assert table[coordinate, code].item() == signed(table_entry(coordinate, code))
    rows = torch.randint(256, (5, 300), generator=generator())
    expected = [signed(sum(table_entry(d, c) for d, c in enumerate(row))) for row in rows.tolist()]
    assert row_ids(rows, table=table).tolist() == expected


def test_more_codes_or_coordinates_do_not_change_the_ones_before():
    assert torch.equal(hash_table(n_coordinates=20, n_codes=30)[:7, :3], hash_table(n_coordinates=7, n_codes=3))


def test_no_two_entries_of_a_large_table_are_equal():
    table = hash_table(n_coordinates=3000, n_codes=256)
    assert table.unique().numel() == table.numel()


def test_ids_touch_no_random_state():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = row_ids(torch.tensor([[0, 1]]), table=hash_table(n_coordinates=2, n_codes=2))
    torch.manual_seed(1)
    assert torch.equal(row_ids(torch.tensor([[0, 1]]), table=hash_table(n_coordinates=2, n_codes=2)), first)
    torch.set_rng_state(before[0])
    row_ids(bucketize(torch.zeros(4, 2), edges=torch.tensor([0.5])), table=hash_table(n_coordinates=2, n_codes=2))
    quantiles(torch.zeros(4, 2), q=[0.5])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


@law
@given(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=1, max_size=30), st.integers(1, 30))
def test_rows_are_equal_where_ids_are_whatever_the_batches(rows, batch_size):
    table = hash_table(n_coordinates=3, n_codes=2)
    grid = torch.tensor(rows)
    ids = row_ids(grid, table=table)
    assert ids.dtype == torch.int64
    for i, row in enumerate(rows):
        assert [other == row for other in rows] == (ids == ids[i]).tolist()
    assert torch.equal(torch.cat([row_ids(batch, table=table) for batch in grid.split(batch_size)]), ids)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_codes_of_any_integer_dtype_give_the_same_ids(dtype):
    rows = torch.randint(100, (50, 9), generator=generator())
    assert torch.equal(
        row_ids(rows.to(dtype), table=hash_table(n_coordinates=9, n_codes=100)),
        row_ids(rows, table=hash_table(n_coordinates=9, n_codes=100)),
    )


def distinct(rows_of, n, table, chunk=100_000):
    """How many different ids the rows 0 … n − 1 get; ``rows_of`` makes a chunk of them from their numbers."""
    return torch.cat([row_ids(rows_of(k), table=table) for k in torch.arange(n).split(chunk)]).unique().numel()


def test_a_million_binary_rows_do_not_collide():
    places = torch.arange(20)
    assert distinct(lambda k: (k.unsqueeze(1) >> places) & 1, 2**20, hash_table(n_coordinates=20, n_codes=2)) == 2**20


def test_a_million_numbers_in_base_256_do_not_collide():
    # Neighboring rows differ in one coordinate by one; most coordinates are zero.
    places = 8 * torch.arange(4)
    assert (
        distinct(lambda k: (k.unsqueeze(1) >> places) & 255, 2**20, hash_table(n_coordinates=4, n_codes=256)) == 2**20
    )


@pytest.mark.slow
def test_millions_of_random_rows_do_not_collide():
    table, n = hash_table(n_coordinates=40, n_codes=3), 2_500_000
    rng = generator()
    assert distinct(lambda k: torch.randint(3, (len(k), 40), generator=rng), n, table) == n  # 3**40 rows to draw from


def test_rows_with_one_hot_coordinate_do_not_collide():
    d = 3000
    one_hot = torch.cat([torch.zeros(1, d, dtype=torch.uint8), torch.eye(d, dtype=torch.uint8)])
    assert row_ids(one_hot, table=hash_table(n_coordinates=d, n_codes=256)).unique().numel() == d + 1
    powers = torch.cat([one_hot[1:301, :300] * 2**k for k in range(8)])
    assert row_ids(powers, table=hash_table(n_coordinates=300, n_codes=256)).unique().numel() == len(powers)


def test_rows_with_two_hot_coordinates_do_not_collide():
    d = 400
    first, second = torch.triu_indices(d, d, offset=1)
    rows = torch.zeros(len(first), d, dtype=torch.uint8)
    rows.scatter_(1, torch.stack([first, second], 1), 1)
    assert row_ids(rows, table=hash_table(n_coordinates=d, n_codes=2)).unique().numel() == len(rows)


def test_wide_rows_that_differ_in_one_coordinate_do_not_collide():
    d = 3000
    base = torch.randint(256, (d,), generator=generator(), dtype=torch.int64)
    rows = base.repeat(d, 1)
    rows.diagonal().add_(1).remainder_(256)
    ids = row_ids(torch.cat([base.unsqueeze(0), rows]), table=hash_table(n_coordinates=d, n_codes=256))
    assert ids.unique().numel() == d + 1


@pytest.mark.parametrize(("n_coordinates", "n_codes"), [(32, 3), (8, 16)])
def test_every_sixteen_bits_of_the_ids_are_spread_evenly(n_coordinates, n_codes):
    n, cells = 2**20, 2**16
    rows = torch.randint(n_codes, (n, n_coordinates), generator=generator(), dtype=torch.uint8)
    table = hash_table(n_coordinates=n_coordinates, n_codes=n_codes)
    ids = torch.cat([row_ids(chunk, table=table) for chunk in rows.split(2**16)])
    expected = n / cells
    for shift in (0, 16, 32, 48):
        counts = torch.bincount((ids >> shift) & (cells - 1), minlength=cells).double()
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        # The mean is cells − 1, the standard deviation sqrt(2 (cells − 1)): six of them either way.
        assert abs(chi_square - (cells - 1)) < 6 * math.sqrt(2 * (cells - 1)), shift


def test_truncated_ids_collide_as_often_as_chance():
    n, bits = 2**20, 32
    rows = torch.randint(3, (n, 32), generator=generator(1), dtype=torch.uint8)
    table = hash_table(n_coordinates=32, n_codes=3)
    ids = torch.cat([row_ids(chunk, table=table) for chunk in rows.split(2**16)])
    expected = n * (n - 1) / 2 / 2**bits  # 128
    for half in (ids & (2**bits - 1), (ids >> bits) & (2**bits - 1)):
        assert abs(n - half.unique().numel() - expected) < 6 * math.sqrt(expected)


def test_rows_that_are_not_finite_are_marked():
    z = torch.tensor([[0.0, 1.0], [math.nan, 1.0], [1.0, math.inf], [-math.inf, 0.0], [0.0, 1.0]])
    table = hash_table(n_coordinates=2, n_codes=2)
    rows = bucketize(z, edges=torch.tensor([0.5]))
    ids = row_ids(rows, table=table, values=z)
    assert (ids == NOT_FINITE).tolist() == [False, True, True, True, False]
    assert torch.equal(ids[[0, 4]], row_ids(rows, table=table)[[0, 4]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_the_memory_of_the_codes_changes_no_id(dtype):
    codes = torch.arange(60).view(12, 5).remainder(7).to(dtype)
    table = hash_table(n_coordinates=5, n_codes=7)
    by_hand = [sum(int(table[d, int(c)]) for d, c in enumerate(row)) for row in codes]
    for same in (codes, codes.t().contiguous().t()):
        assert [(one - two) % 2**64 for one, two in zip(row_ids(same, table=table).tolist(), by_hand)] == [0] * 12


def test_a_table_of_other_coordinates_is_refused():
    for codes in (torch.zeros(4, 2, dtype=torch.int64), torch.zeros(2, 4, dtype=torch.int64).t()):
        with pytest.raises(ValueError, match=r"codes of shape \(4, 2\) do not fit a table of 3 coordinates"):
            row_ids(codes, table=hash_table(n_coordinates=3, n_codes=3))

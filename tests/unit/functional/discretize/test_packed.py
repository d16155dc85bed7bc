"""Ids by four coordinates at a time are those by one at a time."""

import pytest
import torch

from lightning_ib.functional import bucketize, hash_table, row_ids
from lightning_ib.functional.discretize.packed import MAX_EDGES, packed_ids, packed_table


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_edges", range(MAX_EDGES + 1))
@pytest.mark.parametrize("d", [1, 3, 4, 5, 8, 49])
@pytest.mark.parametrize("per_coordinate", [False, True])
def test_ids_are_those_of_single_look_ups(d, n_edges, per_coordinate, dtype):
    g = torch.Generator().manual_seed(d)
    edges = torch.randn(*[d] * per_coordinate, n_edges, generator=g, dtype=dtype).sort(-1).values
    values = torch.randn(200, d, generator=g, dtype=dtype)
    at = torch.randint(d, (50,), generator=g)
    if n_edges:  # some values lie on an edge
        values[torch.arange(50), at] = (edges[at] if per_coordinate else edges.expand(50, n_edges))[:, 0]
    values[50:54, 0] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf])
    table = hash_table(n_coordinates=d, n_codes=n_edges + 1)
    ids = packed_ids(values, edges=edges, packed=packed_table(table))
    assert torch.equal(ids, row_ids(bucketize(values, edges=edges), table=table))


def test_every_four_bin_numbers_have_a_place_of_their_own():
    table = hash_table(n_coordinates=4, n_codes=4)
    packed = packed_table(table)
    assert len(packed) == len(packed.unique()) == 256
    codes = torch.cartesian_prod(*[torch.arange(4)] * 4)
    ids = packed_ids(codes.double(), edges=torch.tensor([1.0, 2.0, 3.0]).double(), packed=packed)
    assert torch.equal(ids, row_ids(codes, table=table))


def test_no_rows_have_no_ids():
    packed = packed_table(hash_table(n_coordinates=5, n_codes=2))
    assert packed_ids(torch.empty(0, 5), edges=torch.tensor([0.0]), packed=packed).shape == (0,)


def test_a_row_with_a_nan_gets_some_id():
    packed = packed_table(hash_table(n_coordinates=2, n_codes=2))
    values = torch.tensor([[torch.nan, 1.0], [0.0, 1.0]])
    assert packed_ids(values, edges=torch.tensor([0.5]), packed=packed).shape == (2,)

"""Codes and quantiles: NumPy's, to the last bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_ib.functional import bucketize, quantiles
from tests.helpers.counting import law
from tests.helpers.samples import generator

# -- Codes -------------------------------------------------------------------------------------------------------------

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def digitized(z, edges):
    """NumPy's answer, in float64, which holds every smaller dtype exactly."""
    values, edges = z.double().numpy(), edges.double().numpy()
    columns = [np.digitize(values[:, d], edges if edges.ndim == 1 else edges[d]) for d in range(values.shape[1])]
    return torch.from_numpy(np.stack(columns, axis=1))


def neighbors(edges, dtype):
    """Each edge in ``dtype``, and the two numbers of ``dtype`` next to it."""
    near = edges.to(dtype)
    infinity = torch.full_like(near, math.inf)
    return torch.cat([near, near.nextafter(infinity), near.nextafter(-infinity)])


@pytest.mark.parametrize("edge_dtype", FLOATS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_codes_are_numpys_for_every_pair_of_dtypes(dtype, edge_dtype):
    edges = torch.tensor(
        [-1e30, -65504.0, -3.3, -1.0, -1 / 3, -1e-7, 0.0, 1e-40, 1e-7, 0.1, 0.1, 0.3, 1 / 3, 1.0, 65504.0, 1e30, 1e300],
        dtype=torch.float64,
    ).to(edge_dtype)
    special = torch.tensor([math.inf, -math.inf, -0.0, 0.0, math.nan], dtype=dtype)
    normal = 3 * torch.randn(500, generator=generator()).to(dtype)
    z = torch.cat([neighbors(edges, dtype), special, normal]).unsqueeze(1)
    assert torch.equal(bucketize(z, edges=edges), digitized(z, edges))


def test_a_value_equal_to_an_edge_belongs_above_it_in_every_precision():
    edge = torch.tensor([0.1], dtype=torch.float64)
    # float32's 0.1 lies above float64's, and its 0.7 below: rounded to float32 both edges would seem to be met.
    assert bucketize(torch.tensor([[0.1]]), edges=edge).item() == 1
    assert bucketize(torch.tensor([[0.7]]), edges=torch.tensor([0.7], dtype=torch.float64)).item() == 0
    assert bucketize(edge.unsqueeze(1), edges=edge).item() == 1
    assert bucketize(edge.unsqueeze(1), edges=torch.tensor([0.1])).item() == 0


floats32 = st.floats(width=32, allow_nan=False)
floats64 = st.floats(allow_nan=False)


@law
@given(st.data(), st.booleans(), st.booleans(), st.booleans())
def test_codes_are_numpys_for_any_values(data, wide_values, wide_edges, edges_by_coordinate):
    d, e, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    drawn = st.lists(floats64 if wide_edges else floats32, min_size=e, max_size=e).map(sorted)
    edge_dtype = torch.float64 if wide_edges else torch.float32
    edges = torch.tensor([data.draw(drawn) for _ in range(d)] if edges_by_coordinate else data.draw(drawn)).to(
        edge_dtype
    )
    if wide_edges:
        edges = torch.tensor(edges.tolist(), dtype=torch.float64)
    dtype = torch.float64 if wide_values else torch.float32
    at_edges = st.sampled_from(neighbors(edges.flatten(), dtype).tolist())
    value = (floats64 if wide_values else floats32) | at_edges
    z = torch.tensor(data.draw(st.lists(st.lists(value, min_size=d, max_size=d), min_size=n, max_size=n)), dtype=dtype)
    assert torch.equal(bucketize(z, edges=edges), digitized(z, edges))


@pytest.mark.parametrize("edges", [torch.linspace(-2, 2, 29), torch.randn(40, 7, generator=generator()).sort().values])
def test_codes_are_numpys_on_many_coordinates(edges):
    z = torch.randn(1000, 40, generator=generator(1))
    found = bucketize(z, edges=edges)
    assert found.dtype == torch.int64
    assert found.shape == z.shape
    assert torch.equal(found, digitized(z, edges))


def test_codes_take_any_memory_layout_and_no_rows():
    z, edges = torch.randn(7, 5, generator=generator()), torch.linspace(-1, 1, 5)
    by_coordinate = torch.stack([edges - 1, edges, edges + 1, edges, edges])
    strided = by_coordinate.t().contiguous().t()
    assert torch.equal(bucketize(z.t().contiguous().t(), edges=strided), bucketize(z, edges=by_coordinate))
    assert torch.equal(
        bucketize(torch.cat([z, z], 1)[:, ::2][:, :5], edges=edges),
        bucketize(torch.cat([z, z], 1)[:, ::2], edges=edges),
    )
    assert bucketize(z[:0], edges=edges).shape == (0, 5)


def test_equal_edges_leave_a_bin_empty():
    z = torch.tensor([[-1.0], [0.0], [1.0]])
    assert bucketize(z, edges=torch.tensor([0.0, 0.0, 0.0])).flatten().tolist() == [0, 3, 3]


@pytest.mark.parametrize("shape", [(), (4,), (4, 3, 2)])
def test_bucketize_wants_rows_of_coordinates(shape):
    with pytest.raises(ValueError, match=r"values must have shape \(N, D\), got \("):
        bucketize(torch.zeros(shape), edges=torch.tensor([0.0]))


@pytest.mark.parametrize("shape", [(), (1, 2), (4, 2), (2, 3), (3, 2, 1)])
def test_edges_must_fit_the_coordinates(shape):
    with pytest.raises(ValueError, match=r"edges of shape .* do not fit values of shape \(5, 3\).*\(D, E\) = \(3, E\)"):
        bucketize(torch.zeros(5, 3), edges=torch.zeros(shape))


# -- Quantiles ---------------------------------------------------------------------------------------------------------

PROBABILITIES = [0.0, 0.01, 0.1, 1 / 3, 0.5, 0.75, 0.99, 1.0]


def assert_numpys_quantiles(found, z, q):
    """Within two roundings of NumPy's interpolation; a quantile that is a value of the data is that value."""
    expected = np.quantile(z.double().numpy(), q, axis=0).T
    np.testing.assert_allclose(found.numpy(), expected, rtol=5e-16, atol=3e-16 * float(z.double().abs().max()))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 2, 3, 100, 1001])
def test_quantiles_are_numpys(n, dtype):
    z = torch.randn(n, 4, generator=generator()).to(dtype)
    z[:, 1] = 3.25  # constant
    z[:, 2] = z[:, 2].round()  # ties
    found = quantiles(z, q=PROBABILITIES)
    assert found.dtype == torch.float64
    assert found.shape == (4, len(PROBABILITIES))
    assert_numpys_quantiles(found, z, PROBABILITIES)


@law
@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=30), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_quantiles_are_numpys_for_any_values(values, q):
    z = torch.tensor(values, dtype=torch.float64).unsqueeze(1)
    assert_numpys_quantiles(quantiles(z, q=q), z, q)


def test_a_quantile_that_is_a_value_is_exactly_that_value():
    # The thesis' rule, that a value equal to an edge belongs above it, hangs on this.
    z = torch.randn(1025, 3, generator=generator())
    found = quantiles(z, q=[k / 1024 for k in range(1025)])
    assert torch.equal(found, z.sort(0).values.t().double())


@law
@given(st.floats(0.5, 2), st.integers(1, 40), st.lists(st.integers(0, 3), min_size=2, max_size=8))
def test_quantiles_never_descend(value, n, ulps):
    # Values a few roundings apart: interpolating between them must not make edges that descend.
    near = [value]
    for _ in range(3):
        near.append(math.nextafter(near[-1], math.inf))
    z = torch.tensor([[near[k]] for k in ulps], dtype=torch.float64)
    assert (quantiles(z, q=[k / n for k in range(n + 1)]).diff() >= 0).all()


@pytest.mark.slow
def test_quantiles_of_more_than_sixteen_million_values():
    z = torch.randn(1_900_000, 9, generator=generator())
    assert z.numel() > 2**24  # where torch.quantile gives up
    before = z[:1000].clone()
    found = quantiles(z, q=[0.01, 0.5, 0.99])
    assert_numpys_quantiles(found, z, [0.01, 0.5, 0.99])
    assert torch.equal(z[:1000], before)


@pytest.mark.slow
def test_quantiles_of_many_coordinates_are_those_of_each():
    # Enough values for several blocks of coordinates.
    z = torch.randn(250_000, 30, generator=generator())
    found = quantiles(z, q=[0.25, 0.9])
    for d in (0, 15, 16, 29):
        assert torch.equal(found[d : d + 1], quantiles(z[:, d : d + 1], q=[0.25, 0.9]))


@pytest.mark.parametrize("n_edges", range(1, 8))
def test_few_edges_and_many_are_searched_alike(n_edges):
    """Up to four edges are compared one by one: ties, NaN and infinities fall as with a search."""
    edges = torch.randn(5, n_edges, generator=generator(2)).sort(1).values
    z = torch.cat([edges.t(), torch.randn(50, 5, generator=generator(3))])
    z[0, 0], z[1, 1], z[2, 2] = math.nan, math.inf, -math.inf
    assert torch.equal(bucketize(z, edges=edges), digitized(z, edges))
    assert torch.equal(bucketize(z, edges=edges[0]), digitized(z, edges[0]))

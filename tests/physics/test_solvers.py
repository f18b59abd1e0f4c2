import weakref

import pytest
import torch

from mrisem.physics.sense import SenseOperator
from mrisem.physics.solvers import Solves, conjugate_gradient, solve_data_consistency

SHAPE = (2, 3, 5, 4)


def make_problem(shape=SHAPE):
    generator = torch.Generator().manual_seed(0)
    n, _, y, x = shape
    maps = torch.randn(shape, dtype=torch.complex128, generator=generator)
    mask = torch.rand(n, y, x, generator=generator) < 0.5
    image = torch.randn(n, y, x, dtype=torch.complex128, generator=generator)
    kspace = torch.randn(shape, dtype=torch.complex128, generator=generator)
    sense = SenseOperator(maps, mask)
    return sense, sense.adjoint(kspace), image


def dense_normal(sense, index):
    one = SenseOperator(sense.sensitivity_maps[index : index + 1], sense.mask[index : index + 1])
    eye = torch.eye(20, dtype=torch.complex128).reshape(20, 1, 5, 4)
    return torch.stack([one.normal(e).flatten() for e in eye], dim=1)


def test_data_consistency_equals_a_dense_solve():
    sense, adjoint, image = make_problem()
    weight = torch.tensor(0.3, dtype=torch.float64)
    x = solve_data_consistency(sense, adjoint, image, weight, tolerance=1e-13, max_iterations=60)
    for i in range(2):
        matrix = dense_normal(sense, i) + 0.3 * torch.eye(20)
        expected = torch.linalg.solve(matrix, (adjoint[i] + 0.3 * image[i]).flatten())
        torch.testing.assert_close(x[i].flatten(), expected)


def test_data_consistency_gradients_equal_finite_differences():
    sense, adjoint, image = make_problem((2, 2, 3, 3))
    weight = torch.full((2, 1, 1), 0.3, dtype=torch.float64, requires_grad=True)

    def solve(adjoint, image, weight):
        return solve_data_consistency(
            sense, adjoint, image, weight, tolerance=1e-14, max_iterations=80
        )

    inputs = (adjoint.requires_grad_(), image.requires_grad_(), weight)
    assert torch.autograd.gradcheck(solve, inputs, atol=1e-6)
    scalar = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: solve(adjoint.detach(), image.detach(), w), scalar)


def test_data_consistency_memory_is_independent_of_iterations():
    sense, adjoint, image = make_problem()
    image.requires_grad_()

    def saved_bytes(iterations):
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            weight = torch.tensor(0.3, dtype=torch.float64)
            solve_data_consistency(sense, adjoint, image, weight, max_iterations=iterations)
        return total

    assert saved_bytes(2) == saved_bytes(50)


def test_conjugate_gradient_stops_each_slice_by_itself():
    diagonal = torch.rand(2, 5, 4, dtype=torch.float64) + 0.5
    b = torch.randn(2, 5, 4, dtype=torch.complex128)
    start = torch.stack(
        [b[0] / diagonal[0], torch.zeros(5, 4)]
    )  # the first slice is solved already
    x, residual = conjugate_gradient(
        lambda v: diagonal * v, b, start, tolerance=1e-12, max_iterations=40
    )
    assert residual[0] < 1e-15 < residual[1] < 1e-12
    assert torch.equal(x[0], start[0])
    torch.testing.assert_close(x[1], b[1] / diagonal[1])


def test_conjugate_gradient_of_zero_is_zero():
    b = torch.zeros(1, 3, 3, dtype=torch.complex64)
    image, residual = conjugate_gradient(lambda v: 2 * v, b)
    assert torch.equal(image, b)
    assert residual == 0


@pytest.mark.parametrize("options", [{}, {"tolerance": 1e-2}, {"tolerance": 1e-11}])
def test_conjugate_gradient_stops_at_the_first_iterate_within_the_tolerance(options):
    generator = torch.Generator().manual_seed(2)
    diagonal = torch.rand(1, 4, 4, dtype=torch.float64, generator=generator) + 0.3
    b = torch.randn(1, 4, 4, dtype=torch.complex128, generator=generator)
    calls = []

    def operator(v):
        calls.append(v)
        return diagonal * v

    x, told = conjugate_gradient(operator, b, **options)
    before, _ = conjugate_gradient(
        lambda v: diagonal * v, b, max_iterations=len(calls) - 1, tolerance=0
    )
    residual, residual_before = ((b - diagonal * v).norm() / b.norm() for v in (x, before))
    torch.testing.assert_close(told[0], residual)
    assert residual <= options.get("tolerance", 1e-6) < residual_before


def test_a_solve_that_resembles_the_last_one_starts_from_it_and_ends_at_its_own_solution():
    sense, adjoint, image = make_problem()
    weight, exact = torch.tensor(0.3, dtype=torch.float64), {"tolerance": 1e-13}
    last = Solves()
    for shift in (0.0, 1e-3, 2e-3):
        moved = (image + shift).requires_grad_()
        fresh = (image + shift).requires_grad_()
        options = exact | {"max_iterations": 80}
        x = solve_data_consistency(sense, adjoint, moved, weight, last=last, **options)
        y = solve_data_consistency(sense, adjoint, fresh, weight, **options)
        x.abs().sum().backward()
        y.abs().sum().backward()
        torch.testing.assert_close(x, y)
        torch.testing.assert_close(moved.grad, fresh.grad)
        assert max(last.residual.max(), last.gradient_residual.max()) < 1e-12
    few = {"tolerance": 0.0, "max_iterations": 2}
    warm = solve_data_consistency(sense, adjoint, image + 3e-3, weight, last=last, **few)
    cold = solve_data_consistency(sense, adjoint, image + 3e-3, weight, **few)
    solved = solve_data_consistency(sense, adjoint, image + 3e-3, weight, **options)
    assert (warm - solved).norm() < 0.01 * (cold - solved).norm()


def test_a_last_solve_that_is_not_finite_is_left_out_for_its_slice_alone():
    sense, adjoint, image = make_problem()
    weight, options = torch.tensor(0.3, dtype=torch.float64), {"tolerance": 0.0}
    broken = image.clone()
    broken[0] = torch.nan
    last = Solves(image=broken, gradient=broken)
    x = solve_data_consistency(sense, adjoint, image, weight, last=last, **options)
    fresh = solve_data_consistency(sense, adjoint, image, weight, **options)
    torch.testing.assert_close(x, fresh)


def test_a_solve_is_freed_with_its_graph():
    sense, adjoint, image = make_problem()
    solved = solve_data_consistency(sense, adjoint, image.requires_grad_(), torch.tensor(0.3))
    graph = weakref.ref(solved.grad_fn)
    solved.abs().sum().backward()
    del solved
    assert graph() is None

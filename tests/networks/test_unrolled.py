import torch

from mrisem.networks.unrolled import Unrolled
from mrisem.physics.sense import Measurement
from mrisem.physics.solvers import solve_data_consistency


def test_unrolled_untrained_is_repeated_data_consistency(make_batch):
    batch = make_batch()
    network = Unrolled(stages=2, channels=4, levels=2, cg_iterations=50, cg_tolerance=1e-6)
    sense = Measurement.of(batch)
    adjoint = sense.adjoint(batch.masked_kspace)
    x = adjoint
    for _ in range(2):
        x = solve_data_consistency(
            sense, adjoint, x, torch.tensor(0.01), tolerance=1e-6, max_iterations=50
        )
    result = network(batch)
    torch.testing.assert_close(result.image, x, atol=1e-4, rtol=1e-4)
    assert len(result.iterates) == 3


def test_unrolled_state_dict_holds_every_stage():
    names = set(Unrolled(stages=3, channels=4, levels=2).state_dict())
    for stage in range(3):
        assert f"log_lambdas.{stage}" in names
        assert any(name.startswith(f"unets.{stage}.") for name in names)


def test_unrolled_applies_to_scans_of_any_coil_count_in_turn(make_batch):
    network = Unrolled(stages=1, channels=4, levels=2)
    for coils, y, x in [(1, 40, 21), (8, 33, 26)]:
        assert network(make_batch(coils=coils, y=y, x=x)).image.shape == (2, y, x)

import torch

from mrisem.networks.inr import INR
from mrisem.tasks.fitting import PerScanFit
from mrisem.tasks.inr import Groups, INRTask
from mrisem.tasks.regularisers import Regulariser


def make_task(first=5, second=4, **options):
    torch.manual_seed(0)
    settings = {"loss_share": None, "log_every": 1, "progress": False}
    stages = (PerScanFit(n, **settings) for n in (first, second))
    return INRTask(INR(2, 16, 15.0, 2, 8), *stages, Regulariser("tv", 0.006), **options)


def test_inr_two_stages_follow_each_other_and_regularise_the_first(make_batch):
    _, curves = make_task().solve(make_batch())
    iterations = [row[2] for row in curves.rows if row[1] == 0 and row[3] == "data_consistency"]
    assert iterations == list(range(9))
    assert {row[2] for row in curves.rows if row[3] == "tv"} == set(range(5))


def test_inr_prior_counts_in_the_second_stage(make_batch, squared_magnitude):
    task = make_task()
    task.priors = {"AXT2": squared_magnitude}
    _, curves = task.solve(make_batch())
    assert {row[2] for row in curves.rows if row[3] == "semantic"} == set(range(5, 9))


def test_inr_final_solve_restores_the_data(make_batch):
    batch = make_batch()
    loose, _ = make_task(final_lambda=None).solve(batch)
    held, _ = make_task().solve(batch)

    def residual(result):
        from mrisem.tasks.samples import data_consistency_residual

        return data_consistency_residual(batch, result.image)

    # (A^H A + mu) x = A^H y + mu x_net: with constant coils the residual shrinks by mu / (1 + mu)
    torch.testing.assert_close(residual(held), residual(loose) * 0.05 / 1.05, rtol=1e-3, atol=1e-4)


def test_groups_give_each_part_its_rate_and_leave_out_the_frozen():
    network = INR(2, 16, 15.0, 2, 8)
    assert [g["lr"] for g in Groups(1e-4, 1e-3)(network)] == [1e-4, 1e-3]
    network.siren.requires_grad_(False)
    assert [g["lr"] for g in Groups(1e-4, 1e-3)(network)] == [1e-3]

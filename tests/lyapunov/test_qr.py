"""The orthonormalisations, on matrices of known condition."""

import numpy as np
import pytest
import torch

from hyperprune.lyapunov.qr import Workspace, householder, log_triangle


def matrix(condition: float, dtype: torch.dtype, size: int = 140, columns: int = 140) -> torch.Tensor:
    """Random rows whose singular values fall evenly from 1 to 1/condition."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
        for n in (columns, size)
    )
    values = torch.logspace(0, -np.log10(condition), columns, dtype=torch.float64)
    return (left @ (values[:, None] * right[:columns])).to(dtype)


def exact_log_triangle(frame_KS: torch.Tensor) -> np.ndarray:
    return np.log(np.abs(np.diag(np.linalg.qr(frame_KS.double().T.numpy())[1])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1, 3, 56, 57, 140])
def test_what_gram_schmidt_and_its_frame_hold_is_the_whole_triangle(columns, dtype):
    frame_KS = matrix(100.0, dtype, columns=columns)
    space = Workspace(None, columns, 140, frame_KS)
    space.frame_KS.copy_(frame_KS)
    diagonal_K = space.orthonormalise(fast=True)
    assert diagonal_K is not None
    logs_K = diagonal_K.double().log() + log_triangle(space.frame_KS)
    # eps times the condition, with a factor for sums of 140 terms.
    atol = 3e3 * torch.finfo(dtype).eps
    np.testing.assert_allclose(logs_K.numpy(), exact_log_triangle(frame_KS), rtol=0, atol=atol)
    unit_KK = (space.frame_KS @ space.frame_KS.T).double().numpy()
    np.testing.assert_allclose(unit_KK, np.eye(columns), rtol=0, atol=1e5 * torch.finfo(dtype).eps)


def test_frames_of_any_condition_are_mended_or_given_up():
    outcomes = set()
    for condition in np.logspace(1, 9, 33):
        frame_KS = matrix(condition, torch.float32)
        space, passes = Workspace(None, 140, 140, frame_KS), []
        plain = space.gram_schmidt

        def counted(plain=plain, passes=passes):
            passes.append(1)
            return plain()

        space.gram_schmidt = counted
        space.frame_KS.copy_(frame_KS)
        diagonal_K = space.orthonormalise(fast=True)
        outcomes.add(len(passes) if diagonal_K is not None else 0)
        if diagonal_K is None:
            continue
        logs_K = diagonal_K.double().log() + log_triangle(space.frame_KS)
        # eps times the condition, which only the last directions feel; nothing is promised beyond 1.
        atol = min(1.0, 100 * condition * torch.finfo(torch.float32).eps)
        np.testing.assert_allclose(
            logs_K[:100].numpy(), exact_log_triangle(frame_KS)[:100], rtol=0, atol=atol
        )
        assert space.loss_of_orthogonality() <= 0.5
    assert outcomes == {0, 1, 2}  # given up, enough at once, mended by a second pass


def test_batches_are_what_their_members_are():
    frames_BKS = torch.stack([matrix(c, torch.float64, columns=60) for c in (10.0, 50.0, 200.0)])
    together = Workspace(3, 60, 140, frames_BKS)
    together.frame_KS.copy_(frames_BKS)
    diagonals_BK = together.orthonormalise(fast=True)
    assert diagonals_BK is not None
    for frame_KS, diagonal_K in zip(frames_BKS, diagonals_BK, strict=True):
        single = Workspace(None, 60, 140, frame_KS)
        single.frame_KS.copy_(frame_KS)
        alone_K = single.orthonormalise(fast=True)
        torch.testing.assert_close(diagonal_K, alone_K, rtol=1e-12, atol=0)  # eps times the condition


def test_one_bad_member_gives_up_the_batch():
    frames_BKS = torch.stack([matrix(10.0, torch.float32), torch.zeros(140, 140)])
    space = Workspace(2, 140, 140, frames_BKS)
    space.frame_KS.copy_(frames_BKS)
    assert space.orthonormalise(fast=True) is None


def test_householder_reflections_take_any_matrix():
    frame_KS = matrix(1e12, torch.float64)
    frame_KS[5] = 0
    unit_KS, diagonal_K = householder(frame_KS)
    np.testing.assert_allclose((unit_KS @ unit_KS.T).numpy(), np.eye(140), rtol=0, atol=1e-13)
    assert (diagonal_K.abs() < 1e-15).sum() == 1

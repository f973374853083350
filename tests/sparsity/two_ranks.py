"""What each of two processes of a distributed run does; a module of its own, so that they can import it."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils import clip_grad_norm_

from hyperprune.sparsity import DynamicSparse, SparseTraining, methods
from sparsity.tiny_runs import OPTIMIZERS, loss_of, seeded, tiny


def train_on_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(tiny())
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    method = DynamicSparse(growth="gradient", redistribution="magnitude", update_every=1, death_rate=0.3)
    # Generators differ between the ranks: only what rank 0 draws may count.
    first = SparseTraining(model, optimizer, method, sparsity=0.6, total_steps=25, generator=seeded(rank))
    masks_at_start = first.masks
    for step in range(20):
        optimizer.zero_grad()
        loss_of(model, 100 * rank + step).backward()
        first.mask_gradients()
        clip_grad_norm_(model.parameters(), 0.25)
        first.step()
    dynamic = SparseTraining(
        model, optimizer, methods.set_(update_every=1), sparsity=0.6, total_steps=25, generator=seeded(rank)
    )
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, 500 + 100 * rank + step).backward()
        dynamic.step()
    torch.save([masks_at_start, first.masks, dynamic.masks, model.module.state_dict()], f"{folder}/{rank}.pt")
    dist.destroy_process_group()

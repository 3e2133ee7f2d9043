"""The device of the ``gpu`` tests.

They need a GPU and are skipped without one. ``ESPNET_CIF_HKD_GPU_TESTS_ON_CPU=1`` runs
them on the CPU, which shows that they are right, not that a GPU is.
"""

import os
from collections.abc import Iterator

import pytest
import torch

ON_CPU = "ESPNET_CIF_HKD_GPU_TESTS_ON_CPU"


@pytest.fixture
def device() -> Iterator[str]:
    """``cuda`` or ``cpu``; on a GPU, float32 products are not rounded to TF32."""
    if os.environ.get(ON_CPU) == "1":
        yield "cpu"
        return
    if not torch.cuda.is_available():
        pytest.skip(f"no GPU; {ON_CPU}=1 runs this test on the CPU")
    saved = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield "cuda"
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = saved

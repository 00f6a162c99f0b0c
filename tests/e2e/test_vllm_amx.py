"""bfloat16 on a CPU with AMX: vLLM's kernels for heads of 64 touch its tiles."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.tiny_policy import write_policy

SAMPLE = """
import sys
from plumbob.configs.settings.workers import VllmEngine
from plumbob.rollout.samplers.sampler import SamplerSpec, sample
from plumbob.rollout.samplers.vllm.vllm_sampler import VllmSampler
from tests.support.opened_models import policy_ref
from tests.support.tiny_policy import make_requests

engine = VllmEngine(kv_cache_gib=0.05, max_num_seqs=8)
sampler = VllmSampler(SamplerSpec(policy_ref(sys.argv[1], "bfloat16"), "w", engine, 0.7, max_tokens=8, lora_rank=0))
print("sampled", len(sample(sampler, make_requests(4))))
sampler.close()
"""


@pytest.mark.skipif(not torch.cpu._is_amx_tile_supported(), reason="the CPU has no AMX")
def test_a_process_that_nothing_multiplied_in_before_samples(tmp_path: Path) -> None:
    # 128 / 2 = 64 a head.
    folder = write_policy(tmp_path, num_heads=2)
    done = subprocess.run([sys.executable, "-c", SAMPLE, folder], capture_output=True, text=True, check=False)
    assert (done.returncode, "sampled 4" in done.stdout) == (0, True), done.stderr[-2000:]

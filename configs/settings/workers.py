"""Where a run is, and how large each group of its workers is."""

import os
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from plumbob.configs.base import (
    BatchSize,
    Changeable,
    Count,
    CountOrZero,
    GiB,
    NumTokens,
    NumWorkers,
    Positive,
    Seconds,
    Settings,
    usable_path,
)
from plumbob.configs.settings.kuberay import KubeRaySettings
from plumbob.configs.settings.programs.environments import EnvironmentSettings

NumThreads = Annotated[int, Field(gt=0, le=4096)]
"""Of one process; and CPUs of one machine."""

NumGpus = Annotated[int, Field(gt=0, le=1024)]
"""That share one model."""

ZeroStage = Literal[0, 1, 2, 3]

Offload = Literal["none", "cpu"]
"""Where something lies that is not needed at every moment: where it is computed with, or in main memory."""

CpuShare = Annotated[float, Field(gt=0, le=4096)]
GpuShare = Annotated[float, Field(ge=0, le=1024)]


class StorageSettings(Settings):
    path: Annotated[str, AfterValidator(usable_path), AfterValidator(os.path.expanduser)] = "runs"
    """Folder of all runs; `~` is the home of who reads the settings. On a cluster, one that every host can read."""


class ClusterSettings(Settings):
    address: str = "local"
    """`local` starts a private Ray cluster on this machine; `auto` or `HOST:PORT` joins a running one."""
    num_cpus: NumThreads | None = None
    """CPUs of a local Ray; None takes all of the machine's."""
    wait_s: Annotated[float, Field(ge=0, le=10_000_000)] = 0.0
    """How long to wait for resources that the cluster does not have yet, or that others hold (these 30 s at least)."""
    boot_timeout_s: Seconds = 600.0
    """How long a worker may take to start and to load its model."""
    call_timeout_s: Seconds = 1800.0
    """How long a worker may take over one piece of work."""
    max_restarts: CountOrZero = 5
    """How often a lost worker may be replaced between one step and the next; once more ends the run."""
    kuberay: KubeRaySettings = KubeRaySettings()


class WorkerGroupSettings(Settings):
    """A group of processes of one role, and what each asks of its host."""

    num_workers: Changeable[NumWorkers] = 1
    """Processes in the group."""
    num_threads: Changeable[NumThreads | None] = None
    """CPU threads of each. None is `OMP_NUM_THREADS` where that is set, and else all cores of this machine, shared by
    the group's processes; on a cluster that is not this run's own, what each asks of Ray."""
    num_cpus: Changeable[CpuShare] = 0.5
    """What each asks of Ray; its threads are set apart, by `num_threads`."""
    num_gpus: Changeable[GpuShare] = 0.0
    """GPUs that each asks for; a part of one where several share it."""
    memory_gib: Changeable[GiB] = 1.0
    """Main memory. Nothing enforces it: it keeps workers off hosts that are too small."""
    placement: Changeable[Literal["pack", "spread"]] = "spread"
    """On as few hosts as possible, or over as many as there are."""

    @property
    def threads(self) -> int:
        """`num_threads` of a run that is running."""
        return self.num_threads or 1


class LearnerRankSettings(WorkerGroupSettings):
    """Processes that hold the policy as a learner does: all that log-probs take."""

    placement: Changeable[Literal["pack", "spread"]] = "pack"
    micro_batch_size: Changeable[BatchSize] = 16
    """The longest sequences in one forward and backward, on each rank; of shorter ones as many as have no more tokens.
    Changes memory and speed, never the result."""
    autocast: bool = False
    """bfloat16 autocast for the matrix products of float32 weights."""


class LearnerSettings(LearnerRankSettings):
    """The group of DeepSpeed ranks."""

    zero_stage: Changeable[ZeroStage | None] = None
    """What the ranks share of the training state: nothing, optimizer, gradients too, weights too.

    None is 2, and 0 at one rank, which has nobody to share with, where what is trained is float32: of other weights
    Adam needs the float32 copy that stages 1 to 3 keep.
    """
    gradient_checkpointing: Changeable[bool] = False
    """Compute activations anew in the backward: less memory, more time."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """AdamW, with two moments of 4 bytes for each trained parameter; or of 1 byte, in blocks of 256 with a scale
    (Dettmers et al. 2022, arXiv 2110.02861), by bitsandbytes. `paged_adamw_8bit` has them, on a GPU, in memory that
    moves to the host where the GPU has too little; on CPUs it is `adamw_8bit`."""
    offload_optimizer: Changeable[Offload] = "none"
    """`cpu` keeps the moments, the float32 copy of what is trained and its gradients in main memory, and takes the
    optimizer's step there: for GPUs that are too small. From ZeRO stage 1 on; None as the stage is then 2."""
    offload_params: Changeable[Offload] = "none"
    """`cpu` keeps weights in main memory until a layer computes with them. At ZeRO stage 3; None as the stage is then
    3."""

    offload_reference: Changeable[Offload] = "none"
    """`cpu` keeps a reference that is a model of its own, as beside a policy of kind full, in main memory while it is
    not asked. The price is the way of its weights to the GPU and back, once a step."""

    @field_validator("offload_optimizer", "offload_params", "offload_reference", mode="before")
    @classmethod
    def _refuse_nvme(cls, given: Any, info: ValidationInfo) -> Any:
        if given == "nvme":
            raise ValueError(
                f"learner.{info.field_name}=nvme: DeepSpeed's swapping to NVMe empties the tensors between steps that "
                f"checkpoints, publishes and clipping here read, and needs libaio and a compiler on every host; set "
                f"learner.{info.field_name}=cpu, share the state among more ranks, or train an adapter"
            )
        return given

    @model_validator(mode="after")
    def _check_offload(self) -> Self:
        if self.offload_optimizer != "none" and self.zero_stage == 0:
            raise ValueError(
                "learner.offload_optimizer=cpu moves the share of a rank, and learner.zero_stage=0 shares nothing: "
                "leave learner.zero_stage out, or set it to 1, 2 or 3"
            )
        if self.offload_params != "none" and self.zero_stage not in (None, 3):
            raise ValueError(
                f"learner.offload_params=cpu brings a layer's weights when it is called, as learner.zero_stage=3 does, "
                f"and learner.zero_stage={self.zero_stage} keeps them: leave learner.zero_stage out, or set it to 3"
            )
        if self.offload_reference != "none" and (self.zero_stage == 3 or self.offload_params != "none"):
            raise ValueError(
                "learner.offload_reference=cpu moves whole weights, which ranks of learner.zero_stage=3 have parts of: "
                "set learner.offload_params=cpu instead, which the reference's are moved by too"
            )
        if self.offload_optimizer != "none" and self.optimizer != "adamw":
            raise ValueError(
                f"learner.optimizer={self.optimizer} computes where the model does, and learner.offload_optimizer=cpu "
                f"in main memory: leave out one of the two"
            )
        return self

    def resolved_zero_stage(self, trains_float32: bool) -> ZeroStage:
        """The stage that is given, or the one that None stands for."""
        if self.zero_stage is not None:
            return self.zero_stage
        if self.offload_params != "none":
            return 3
        if self.offload_optimizer != "none":
            return 2
        return 0 if self.num_workers == 1 and trains_float32 else 2


class TransformersEngine(Settings):
    kind: Literal["transformers"] = "transformers"


class VllmEngine(Settings):
    kind: Literal["vllm"] = "vllm"
    kv_cache_gib: Changeable[Positive] = 0.5
    """Of an engine on a CPU. On a GPU vLLM takes what the GPU's memory has left."""
    gpu_memory_fraction: Changeable[Annotated[float, Field(gt=0, le=1)]] = 0.9
    """Of one GPU's memory, what the engine takes; less where roles share a GPU. On a CPU `kv_cache_gib` counts."""
    max_num_seqs: Changeable[BatchSize] = 128
    """Responses that the engine samples at once."""
    enforce_eager: Changeable[bool] = True
    """Start sooner and sample slower: nothing is compiled."""


SamplerEngine = Annotated[VllmEngine | TransformersEngine, Field(discriminator="kind")]


AdapterServing = Literal["merged", "lora"]
"""What a sampler does with an adapter: adds it to the base's weights, or computes with it beside them."""


class AutoscaleSettings(Settings):
    """The number of rollout workers follows who waits for whom: the learner for responses, or they for it."""

    min_workers: NumWorkers = 1
    """Fewest rollout workers."""
    max_workers: NumWorkers
    """Most rollout workers."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of a step's time by which one side waits longer than the other before the number changes."""
    patience: Count = 3
    """Steps in a row for which it does."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_workers > self.max_workers:
            raise ValueError(
                f"rollout.autoscale: min_workers={self.min_workers} is above max_workers={self.max_workers}"
            )
        return self


class RolloutSettings(WorkerGroupSettings):
    """The group of rollout workers and how they sample."""

    engine: SamplerEngine = VllmEngine()
    adapter: Changeable[AdapterServing | None] = None
    """How vLLM samples with an adapter: `merged` into its weights, one version at a time; or as `lora`, beside them.

    None merges on a CPU in float32, with models that this is known to be exact for. Merged weights that are rounded to
    bfloat16 are a little further from the learner's policy. `summary.json` says which it was.
    """
    quantised_base: Literal["dequantised", "stored"] = "dequantised"
    """What is sampled from where the policy has a `quantization`: the floats that the learners compute with, which each
    host writes once into ~/.cache/plumbob/models; or the model as it is stored, which is another policy."""
    tensor_parallel: Changeable[NumGpus] = 1
    """GPUs that share one copy of the model."""
    temperature: Positive = 1.0
    """What logits are divided by before a token is drawn."""
    max_tokens: NumTokens = 64
    """Of one response; of an episode, the policy's and the environment's together."""
    chunk_size: BatchSize = 64
    """Responses that one worker samples together: the unit of work that workers take."""
    partial_tokens: NumTokens | None = None
    """Tokens after which a response is handed back partial, for any worker to continue under the newest policy.

    A worker that is lost costs no more of each response, and one that is draining goes after one such part. None
    samples a chunk whole, or anew: then it depends on the seed and the policy alone.
    """
    environment: EnvironmentSettings | None = None
    """What answers each turn of the policy's, so that a response is a whole episode; None makes it one turn."""
    autoscale: Changeable[AutoscaleSettings | None] = None
    """None keeps `num_workers`, which people may change while the run is running."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.adapter == "merged" and not self.can_merge:
            raise ValueError(
                "rollout.adapter=merged is for vLLM on one device, uncompiled: set rollout.engine.kind=vllm, "
                "rollout.engine.enforce_eager=true and rollout.tensor_parallel=1, or rollout.adapter=lora"
            )
        if self.partial_tokens is not None and self.partial_tokens >= self.max_tokens:
            raise ValueError(
                f"rollout.partial_tokens={self.partial_tokens} hands partial responses back, and "
                f"rollout.max_tokens={self.max_tokens} ends them before: set rollout.partial_tokens lower"
            )
        if self.partial_tokens is not None and self.environment is not None:
            raise ValueError(
                f"rollout.partial_tokens={self.partial_tokens} hands responses on to other workers, which have not the "
                f"environment of an episode that has begun: leave it out with rollout.environment"
            )
        return self

    @property
    def can_merge(self) -> bool:
        """Whether the engine computes with what is loaded into it later: compiled code may keep what it began with."""
        return isinstance(self.engine, VllmEngine) and self.engine.enforce_eager and self.tensor_parallel == 1

"""The sections that kinds of run share: where things are, what the models are, how large each group of workers is."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

Fraction = Annotated[float, Field(ge=0, lt=1)]
Dtype = Literal["float32", "bfloat16"]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Storage(Section):
    path: str = "runs"
    """Folder of all runs. On a cluster, the one place that every host can read."""


class Cluster(Section):
    address: str = "local"
    """`local` starts a private Ray on this machine; `auto` or `HOST:PORT` joins a running one."""
    num_cpus: PositiveInt | None = None
    """CPUs of a local Ray; None takes all of the machine's."""
    wait_s: Annotated[float, Field(ge=0)] = 0.0
    """How long to wait for resources that the cluster does not have yet."""
    boot_timeout_s: PositiveFloat = 600.0
    call_timeout_s: PositiveFloat = 1800.0


# ---------------------------------------------------------------------------------------------------------------- data


class DataRules(Section):
    """How files of records are read, cut and split."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Our field name -> the file's column, for files whose names are not recognised."""
    bad_rows: Literal["refuse", "skip"] = "refuse"
    overlap: Literal["refuse", "drop"] = "refuse"
    """What to do with records whose prompt stands in both the training and the held-out split."""
    heldout_fraction: Fraction = 0.05
    """Share of the prompts kept apart when no held-out file is given."""
    max_prompt_tokens: PositiveInt = 512
    max_answer_tokens: PositiveInt = 512


class TextData(DataRules):
    text: str
    heldout_text: str | None = None


class DemonstrationData(DataRules):
    demonstrations: str
    heldout_demonstrations: str | None = None


class PairData(DataRules):
    pairs: str
    heldout_pairs: str | None = None


class PromptData(DataRules):
    prompts: str
    heldout_prompts: str | None = None


class ToyWorld(Section):
    """Size of the generated world that the embedded default is about."""

    num_cars: PositiveInt = 6
    num_texts: PositiveInt = 6000
    num_demonstrations: PositiveInt = 1500
    num_pairs: PositiveInt = 8000
    num_heldout_pairs: PositiveInt = 3000
    preference_noise: PositiveFloat = 0.5
    """Temperature of the simulated annotator: P(a over b) = sigmoid((gold(a) - gold(b)) / noise)."""


class PipelineData(DataRules):
    """Input of the whole pipeline. What is not given is derived from the pairs: text, demonstrations and prompts."""

    toy: ToyWorld | None = None
    pairs: str | None = None
    heldout_pairs: str | None = None
    demonstrations: str | None = None
    prompts: str | None = None
    text: str | None = None


class EvalData(DataRules):
    prompts: str | None = None
    pairs: str | None = None


# -------------------------------------------------------------------------------------------------------------- models


class NewLlama(Section):
    """A Llama-architecture model made from nothing, with a byte-level BPE tokenizer trained on the text."""

    vocab_size: PositiveInt = 1024
    hidden_size: PositiveInt = 128
    num_layers: PositiveInt = 2
    num_heads: PositiveInt = 4
    intermediate_size: PositiveInt = 384
    max_positions: PositiveInt = 256


class NewBert(Section):
    """A BERT made from nothing, with a WordPiece tokenizer trained on the text."""

    vocab_size: PositiveInt = 1024
    hidden_size: PositiveInt = 128
    num_layers: PositiveInt = 2
    num_heads: PositiveInt = 4
    intermediate_size: PositiveInt = 384
    max_positions: PositiveInt = 256


class FullTuning(Section):
    kind: Literal["full"] = "full"


class LoraTuning(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    kind: Literal["lora"] = "lora"
    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: Fraction = 0.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"


Tuning = Annotated[FullTuning | LoraTuning, Field(discriminator="kind")]


def refuse_dropout(tuning: LoraTuning) -> LoraTuning:
    if tuning.dropout:
        raise ValueError(
            f"policy.tuning.dropout={tuning.dropout:g}: PPO and DPO compare the policy with log-probs made without "
            f"dropout; set policy.tuning.dropout=0"
        )
    return tuning


AlignmentTuning = Annotated[LoraTuning, AfterValidator(refuse_dropout)]


class PolicyBase(Section):
    trust_remote_code: bool = False
    dtype: Dtype = "float32"


class Policy(PolicyBase):
    """The language model. `model` is a Hugging Face folder, a PEFT adapter folder or a hub name."""

    model: str
    tuning: Tuning = LoraTuning()


class AlignedPolicy(PolicyBase):
    """The language model of an alignment stage, which trains a LoRA adapter on a frozen base."""

    model: str
    tuning: AlignmentTuning = LoraTuning()


class PretrainedPolicy(PolicyBase):
    """The language model of pre-training: made new, or a folder or hub name to go on from."""

    model: str | NewLlama


class PipelinePolicy(PolicyBase):
    """The language model of a pipeline: one made from nothing is pre-trained first, a named one is taken as it is.

    `sft_tuning` is of supervised fine-tuning, `tuning` of PPO and DPO, which start from its result.
    """

    model: str | NewLlama
    sft_tuning: Tuning = FullTuning()
    tuning: AlignmentTuning = LoraTuning()


class EvaluatedPolicy(PolicyBase):
    model: str
    baseline: str | None = None
    """What the policy is compared with and KL is measured from; None takes the policy's own base."""


# --------------------------------------------------------------------------------------------------------------- roles


class Learner(Section):
    """The group of DeepSpeed ranks."""

    num_workers: PositiveInt = 1
    num_threads: PositiveInt = 1
    num_cpus: PositiveFloat = 0.5
    """What each rank asks of Ray; its threads are set apart, by `num_threads`."""
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    zero_stage: Literal[0, 1, 2, 3] = 2
    micro_batch_size: PositiveInt = 16
    """Sequences in one forward and backward, on each rank. Changes memory and speed, never the result."""
    gradient_checkpointing: bool = False
    autocast: bool = False
    """bfloat16 autocast for the matrix products of float32 weights."""


class TransformersEngine(Section):
    kind: Literal["transformers"] = "transformers"


class VllmEngine(Section):
    kind: Literal["vllm"] = "vllm"
    kv_cache_gib: PositiveFloat = 0.5
    """Of an engine on a CPU. On a GPU vLLM takes what the GPU's memory has left."""
    gpu_memory_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Of one GPU's memory, what the engine takes; less where roles share a GPU. On a CPU `kv_cache_gib` counts."""
    max_num_seqs: PositiveInt = 128
    enforce_eager: bool = True


SamplerEngine = Annotated[VllmEngine | TransformersEngine, Field(discriminator="kind")]


class Rollout(Section):
    """The group of rollout workers and how they sample."""

    engine: SamplerEngine = VllmEngine()
    num_workers: PositiveInt = 1
    num_threads: PositiveInt = 1
    num_cpus: PositiveFloat = 0.5
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    tensor_parallel: PositiveInt = 1
    temperature: PositiveFloat = 1.0
    max_tokens: PositiveInt = 64
    chunk_size: PositiveInt = 64
    """Answers that one worker samples together: the unit of work that workers take."""


class Scorer(Section):
    """The group of reward scorers. `model` is a sequence-classification folder with one output."""

    model: str
    num_workers: PositiveInt = 1
    num_threads: PositiveInt = 1
    num_cpus: PositiveFloat = 0.5
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    batch_size: PositiveInt = 32
    max_tokens: PositiveInt = 256
    normalize: bool = True
    """Use the calibration stored with the model: mean 0 and variance 1 under the policy that it was calibrated on."""


class PipelineScorer(Scorer):
    """In a pipeline, `model` is the encoder that becomes the reward model: made new, a folder or a hub name."""

    model: str | NewBert  # type: ignore[assignment]


class RewardEncoder(Section):
    model: str | NewBert
    max_tokens: PositiveInt = 256


# -------------------------------------------------------------------------------------------------------- optimisation


class Optimizer(Section):
    """AdamW with a schedule: linear warm-up, then constant, or linear or cosine decay to zero."""

    learning_rate: PositiveFloat
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_fraction: Fraction = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: PositiveFloat = 1.0


class Epochs(Optimizer):
    """An offline stage: passes over a fixed set of records."""

    num_epochs: PositiveInt = 1
    batch_size: PositiveInt = 32
    """Records in one optimizer step, over all ranks."""
    save_every: PositiveInt = 200
    """Optimizer steps between checkpoints; the last step is always saved."""
    keep_checkpoints: PositiveInt = 2

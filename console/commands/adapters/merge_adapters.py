"""`plumbob adapters merge`: a weighted sum of adapters as a new one, or an adapter and its base as a full model."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbob.console.commands.adapters.library_options import add_library, library_of
from plumbob.console.exit_codes import OK
from plumbob.console.options import add_dtype, add_json
from plumbob.console.tables import number
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.models.merging.asked_sum import SUM_KINDS, WeightedSum

if TYPE_CHECKING:
    from plumbob.models.adapter import Adapter
    from plumbob.models.library.adapter_library import AdapterLibrary
    from plumbob.models.loading import OpenedPolicy
    from plumbob.models.quantization.forms import KeptBits

NAME = "merge"
ABOUT = "sum adapters into a new one, or write an adapter and its base as one full model"
EXAMPLE = "plumbob adapters merge sums words --weights 0.7 0.3 --name both"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="adapters of the library, on one base")
    parser.add_argument(
        "--weights", type=float, nargs="+", metavar="X", help="of the adapters, in their order; default: 1 for each"
    )
    parser.add_argument(
        "--how",
        choices=SUM_KINDS,
        default="sum",
        help="sum is what the adapters add to the base, exactly; the others sum A and B each; default: sum",
    )
    parser.add_argument("--density", type=float, metavar="X", help="share of numbers that ties and dare_* keep")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the numbers that dare_* keep; default: 0")
    result = parser.add_mutually_exclusive_group(required=True)
    result.add_argument("--name", metavar="NEW", help="the sum becomes an adapter of the library, of this name")
    result.add_argument("--full", type=Path, metavar="FOLDER", help="the sum and the base become a full model, there")
    parser.add_argument("--task", metavar="TEXT", help="what the new adapter is for, in words")
    add_dtype(parser, "of the full model's weights; default: of the base's own", default=None)
    parser.add_argument(
        "--dequantised",
        action="store_true",
        help="of a full model: add to the weights that the base had in 4 bits (NF4), as floats",
    )
    add_library(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.models.adapter import load_adapter
    from plumbob.models.quantization.forms import hush_bitsandbytes

    hush_bitsandbytes()
    from plumbob.models.merging.weighted_sums import open_parts, weighted_sum

    names: list[str] = arguments.names
    _check_options(arguments)
    asked = WeightedSum(
        arguments.how, tuple(arguments.weights or [1.0] * len(names)), arguments.density, arguments.seed
    )
    asked.check(len(names))
    library = library_of(arguments)
    folders = [library.folder_of(name) for name in names]
    if arguments.name is not None:
        library.check_new(arguments.name)
    else:
        _check_free(arguments.full)
    parts = open_parts(folders)
    # One adapter as it is may be of any kind that changes weights; sums are of plain LoRA.
    is_as_it_is = arguments.full is not None and asked.how == "sum" and asked.weights == (1.0,)
    adapter = load_adapter(folders[0]) if is_as_it_is else weighted_sum(parts, asked)
    if arguments.full is not None:
        return _write_full(arguments, library, adapter, parts[0])
    return _add_sum(arguments, library, adapter, asked)


def _check_options(arguments: Namespace) -> None:
    """Raises UserError where options do not go together."""
    twice = next((name for name in arguments.names if arguments.names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{twice}: is given twice; give it once, with the sum of its weights")
    if arguments.full is None and (arguments.dtype or arguments.dequantised):
        raise UserError("--dtype and --dequantised are of a full model: give --full FOLDER instead of --name")
    if arguments.full is not None and arguments.task is not None:
        raise UserError("--task is of a new adapter of the library: give --name NEW instead of --full")


def _check_free(folder: Path) -> None:
    """Raises UserError where something is in the place of a new folder, or nothing can be."""
    with from_outside(f"--full={folder}: cannot be looked at", "give a folder that may be written"):
        is_there = folder.expanduser().exists()
    if is_there:
        raise UserError(f"--full={folder}: is there already; give a folder that is not")


def _add_sum(arguments: Namespace, library: AdapterLibrary, adapter: Adapter, asked: WeightedSum) -> int:
    from plumbob.models.library.adding import add_sum

    weights = dict(zip(arguments.names, asked.weights, strict=True))
    kept = "" if asked.density is None else f" (density {asked.density:g}, seed {asked.seed})"
    entry = add_sum(library, arguments.name, arguments.task, adapter, f"{asked.how}{kept}", weights)
    folder = library.folder_of(entry.name)
    if arguments.json:
        _print_json({"folder": str(folder), **entry.model_dump()})
    else:
        print(f"{folder}: added, {entry.source}; rank {entry.rank}")
    return OK


def _write_full(arguments: Namespace, library: AdapterLibrary, adapter: Adapter, part: OpenedPolicy) -> int:
    from plumbob.models.merging.merged_model import write_merged

    folder = arguments.full.expanduser()
    bits = [library.entry(name).quantization for name in arguments.names]
    kept = _kept_bits(bits) if arguments.dequantised else None
    proof = write_merged(adapter, part, folder, arguments.dtype, kept)
    if arguments.json:
        _print_json({"folder": str(folder), **asdict(proof)})
        return OK
    print(f"{folder}: a full model, in {proof.dtype}")
    print(
        f"its logits differ from those of the adapter beside its base by up to {number(proof.gap)} in float32, and by "
        f"up to {number(proof.saved_gap)} as saved"
    )
    if any(bits) and kept is None:
        print(
            "trained on a base in 4 bits, and merged into the weights as they are stored: --dequantised takes its own"
        )
    return OK


def _kept_bits(given: Sequence[Mapping[str, Any] | None]) -> KeptBits:
    """Of the runs that made the adapters, or the default. UserError where they differ, or had weights as stored."""
    from plumbob.models.quantization.forms import KeptBits

    known = [each for each in given if each is not None]
    if not all(known):
        raise UserError("--dequantised: an adapter was trained on weights as they are stored: leave --dequantised out")
    if any(each != known[0] for each in known):
        raise UserError("--dequantised: the adapters were trained on bases in different bits: merge them one by one")
    return KeptBits.of(known[0] if known else {})


def _print_json(content: Mapping[str, Any]) -> None:
    from plumbob.console.display import print_json

    print_json(content, sys.stdout)

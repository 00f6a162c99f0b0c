"""`plumbob export`: a policy as a folder that a hub takes, an adapter or merged, with a page of what is known of it."""

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_dtype, add_json, add_policy
from plumbob.console.tables import number, size

NAME = "export"
ABOUT = "write a policy as a hub's folder: safetensors, tokenizer, model card"
EXAMPLE = "plumbob export runs/toy/ppo car-answers --base-name team/car-base"


def add_options(parser: ArgumentParser) -> None:
    add_policy(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write, which is not there yet")
    parser.add_argument("--merged", action="store_true", help="an adapter and its base as one full model")
    add_merging(parser)
    parser.add_argument("--base-name", metavar="TEAM/NAME", help="what the base is called on a hub")
    parser.add_argument(
        "--usage", metavar="FILE", type=Path, help="your usage guidelines; without them their template is written"
    )
    add_json(parser)


def add_merging(parser: ArgumentParser) -> None:
    add_dtype(parser, "of merged weights; default: of the base's own", default=None)
    parser.add_argument(
        "--dequantised", action="store_true", help="merge into the weights that the base had in 4 bits (NF4), as floats"
    )


def run(arguments: Namespace) -> int:
    return write(arguments, arguments.merged, arguments.base_name, arguments.usage)


def write(arguments: Namespace, merged: bool, base_name: str | None, usage: Path | None) -> int:
    """Export as the options say, and print what was written."""
    from plumbob.models.quantization.forms import hush_bitsandbytes

    hush_bitsandbytes()
    from plumbob.driver.result.exported_policy import export_policy

    exported = export_policy(
        arguments.policy, arguments.out, merged, arguments.dtype, arguments.dequantised, base_name, usage
    )
    if arguments.json:
        from plumbob.console.display import print_json

        print_json(asdict(exported) | {"folder": str(exported.folder)}, sys.stdout)
        return OK
    written = sum(exported.files.values())
    print(f"{exported.folder}: {len(exported.files)} files, {size(written)}: {', '.join(exported.files)}")
    if exported.proof is not None:
        gap, saved = number(exported.proof.gap), number(exported.proof.saved_gap)
        print(f"merged: logits differ from the adapter's by up to {gap}, as saved in {exported.proof.dtype} by {saved}")
    if exported.left_out:
        print(f"left out, being no part of a model's folder: {', '.join(exported.left_out)}")
    for note in exported.notes:
        print(note)
    return OK

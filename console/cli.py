"""The command line. Reads its arguments without importing torch; a user's mistake is one message and exit status 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from plumbob.core.errors import RunFailed, RunStopped, UserError

if TYPE_CHECKING:
    from plumbob.driver.api import RunResult
    from plumbob.trainers.metrics.metrics_log import Listener

OK, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
OVERRIDES = "settings to change, such as ppo.num_steps=20 policy.model=/path/to/model"
RESUME_OVERRIDES = "settings to change that do not change what is computed, such as rollout.num_workers=4"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: 0, 1 for a run that failed, 2 for a mistake, 130 when interrupted."""
    arguments = _parse(argv)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except UserError as error:
        print("\n".join(f"plumbob: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return MISTAKE
    except RunStopped as error:
        print(f"plumbob: {error}", file=sys.stderr)
        return INTERRUPTED
    except RunFailed as error:
        print(f"plumbob: the run failed: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("plumbob: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse; settings may stand after an option too, where argparse has closed its list of them."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and ("overrides" not in arguments or any(item.startswith("-") for item in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="plumbob",
        description="Aligns language models: pre-training, fine-tuning, reward models, PPO, GRPO, DPO, KTO and more.",
        epilog="CONFIG is a preset's name, such as toy, or a YAML file. `plumbob run toy` needs nothing else.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(command=command)
        return added

    def add_config(added: argparse.ArgumentParser) -> None:
        added.add_argument("config", metavar="CONFIG", help="a preset's name or a YAML file")
        added.add_argument("overrides", metavar="a.b=c", nargs="*", help=OVERRIDES)

    run = add("run", _run, "run the stages that CONFIG describes")
    add_config(run)
    resume = add("resume", _resume, "go on with a run that was stopped")
    resume.add_argument("run", metavar="RUN", help="the run's folder, or its name below runs/")
    resume.add_argument("overrides", metavar="a.b=c", nargs="*", help=RESUME_OVERRIDES)
    evaluate = add("eval", _evaluate, "measure a reward model on pairs, or a policy on prompts")
    evaluate.add_argument("overrides", metavar="[CONFIG] a.b=c", nargs="*", help=OVERRIDES)
    plan = add("plan", _plan, "say what a run will need, and start nothing")
    add_config(plan)
    submit = add("submit", _submit, "send a run to a Ray cluster, or write what KubeRay or Slurm starts it with")
    add_config(submit)
    where = submit.add_mutually_exclusive_group(required=True)
    where.add_argument("--address", metavar="URL", help="the dashboard of the cluster's head, such as http://HEAD:8265")
    where.add_argument("--render", choices=("kuberay", "slurm"), help="print a KubeRay manifest or a Slurm script")
    submit.add_argument("--no-wait", action="store_true", help="do not follow what the run prints")
    submit.add_argument("--with-source", action="store_true", help="send Plumbob itself too: the hosts lack it")
    for added in (run, submit):
        added.add_argument("--resume", action="store_true", help="go on with the run of that name, if it has begun")
    submit.add_argument("--image", help="kuberay: the container image, with Plumbob in it")
    submit.add_argument("--claim", metavar="NAME", help="kuberay: the PersistentVolumeClaim for storage.path")
    submit.add_argument("--hosts", type=int, metavar="N", help="slurm: equal hosts to spread the workers over (1)")
    status = add("status", _status, "say where a run stands: its step, its workers, its responses")
    scale = add("scale", _scale, "change the number of rollout workers of a run that goes on")
    who = scale.add_mutually_exclusive_group(required=True)
    who.add_argument("--rollout-workers", type=int, metavar="N", help="how many there shall be")
    who.add_argument("--leave", metavar="HOST", help="of a host that will be taken away: its workers leave it in order")
    stop = add("stop", _stop, "ask a run to stop; it can be resumed")
    for added in (status, scale, stop):
        added.add_argument("run", metavar="RUN", help="the run's folder, its name below runs/, or that at --address")
        added.add_argument("--address", metavar="HOST:PORT", help="the Ray that the run goes on on, as cluster.address")
    report = add("report", _report, "write a run's report.html anew")
    report.add_argument("run", metavar="RUN", help="the run's folder, or its name below runs/")
    doctor = add("doctor", _doctor, "check the machine and the installed packages")
    verify = add("verify", _verify, "train where the best policy is known, and say how near the trainers come")
    verify.add_argument("words", metavar="WORD", nargs="*", help="only rows with one of these in them, such as GRPO")
    verify.add_argument("--seeds", type=int, default=3, help="instances of each row (3)")
    verify.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once (one for each core)")
    for added in (run, resume, evaluate, plan, submit, status, report, doctor, verify):
        added.add_argument("--json", action="store_true", help="print JSON for scripts, one object a line")
    return parser


# ------------------------------------------------------------------------------------------------------------ commands


def _run(arguments: argparse.Namespace) -> int:
    from plumbob.configs.load_run import load_run

    config = load_run(arguments.config, arguments.overrides, arguments.resume)
    from plumbob.driver.run_folder.folder import run_folder

    folder = run_folder(config)
    if arguments.resume:
        from plumbob.driver.api import run_or_resume as start
    else:
        from plumbob.driver.api import run as start
    return _watched(folder, arguments.json, lambda listener: start(config, listener))


def _resume(arguments: argparse.Namespace) -> int:
    from plumbob.driver.run_folder.folder import find_run

    folder = find_run(arguments.run)
    from plumbob.driver.api import resume

    return _watched(folder, arguments.json, lambda listener: resume(folder, listener, overrides=arguments.overrides))


def _watched(folder: Path, as_json: bool, start: Callable[[Listener], RunResult]) -> int:
    """Run with a listener, then write the report and print the result; an interrupted run says how to go on."""
    from plumbob.configs.load_run import RESOLVED_FILE
    from plumbob.console.display import choose_listener, print_json, print_summary
    from plumbob.console.report.page import write_report

    try:
        # Ray prints what befalls workers and hosts to whatever stdout is then.
        with choose_listener(as_json, sys.stdout) as listener, redirect_stdout(sys.stderr):
            result = start(listener)
    except KeyboardInterrupt:
        if not (folder / RESOLVED_FILE).is_file():
            raise
        print(f"plumbob: interrupted; go on from the last checkpoint with: plumbob resume {folder}", file=sys.stderr)
        return INTERRUPTED
    try:
        report = write_report(result.folder)
    except OSError as error:
        raise RunFailed(
            f"all stages ended well, but the report cannot be written: {error}; write it later with: "
            f"plumbob report {result.folder}"
        ) from error
    if as_json:
        ended = {"event": "run_ended", "folder": str(result.folder), "report": str(report), "summary": result.summary}
        print_json(ended, sys.stdout)
    else:
        print_summary(result.summary, sys.stdout)
        print(f"report: {report}")
    return OK


def _evaluate(arguments: argparse.Namespace) -> int:
    from plumbob.console.commands.evaluate import evaluate

    return evaluate(arguments)


def _plan(arguments: argparse.Namespace) -> int:
    from plumbob.configs.load_run import load_run

    config = load_run(arguments.config, arguments.overrides)
    from plumbob.console.display import print_json
    from plumbob.driver.api import plan

    made = plan(config)
    if arguments.json:
        print_json(made.as_dict(), sys.stdout)
    else:
        print("\n".join(made.lines()))
    return OK if made.fits else FAILED


def _submit(arguments: argparse.Namespace) -> int:
    from plumbob.console.commands.submit import submit

    return submit(arguments)


def _status(arguments: argparse.Namespace) -> int:
    from plumbob.console.commands.status import status

    return status(arguments)


def _scale(arguments: argparse.Namespace) -> int:
    from plumbob.console.commands.status import scale

    return scale(arguments)


def _stop(arguments: argparse.Namespace) -> int:
    from plumbob.console.commands.status import stop

    return stop(arguments)


def _report(arguments: argparse.Namespace) -> int:
    from plumbob.console.report.page import write_report
    from plumbob.driver.run_folder.folder import find_run

    path = write_report(find_run(arguments.run))
    if arguments.json:
        from plumbob.console.display import print_json

        print_json({"report": str(path)}, sys.stdout)
    else:
        print(path)
    return OK


def _doctor(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from plumbob.console.commands.doctor import examine, line
    from plumbob.console.display import print_json

    checks = examine()
    ok = all(check.ok for check in checks)
    if arguments.json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]}, sys.stdout)
    else:
        print("\n".join(line(check) for check in checks))
    return OK if ok else FAILED


def _verify(arguments: argparse.Namespace) -> int:
    from plumbob.console.display import aligned, print_json
    from plumbob.verify.measurements import chosen, line, measured, mistake_lines

    places = chosen(arguments.words)
    if not places:
        raise UserError(f"no row has {' or '.join(arguments.words)} in it; `plumbob verify` runs them all")
    if min(arguments.seeds, arguments.jobs) < 1:
        raise UserError("--seeds and --jobs: expected 1 or more")
    results = []
    for result in measured(places, arguments.seeds, arguments.jobs):
        results.append(result)
        if arguments.json:
            print_json(result.as_dict(), sys.stdout)
        else:
            print("  ".join(line(result)), file=sys.stderr)
    if not arguments.json:
        rows = aligned([line(result) for result in sorted(results, key=lambda result: result.place)])
        print("\n".join([*rows, *mistake_lines(results)]))
    return OK if all(result.holds for result in results) else FAILED


if __name__ == "__main__":
    sys.exit(main())

"""Fuzzes the parsers with atheris: whatever comes in, they return something or raise an error of ours."""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["DmpWorkflow"]):
    from DmpWorkflow.core import variables
    from DmpWorkflow.core.job_xml import parse_jobs, serialise_jobs
    from DmpWorkflow.core.literals import dictionary
    from DmpWorkflow.core.overrides import from_json, from_mapping
    from DmpWorkflow.frontend.cli.assignments import overrides as assignments
    from DmpWorkflow.utils.errors import DmpWorkflowError
    from DmpWorkflow.utils.units import parse_clock, parse_memory

LONGEST = 4096  # bytes of an input
MOST_MB = 2048  # of memory
MOST_SECONDS = 30  # for one input


def xml(data: bytes) -> None:
    """What can be read can be written and read again."""
    jobs, _ = parse_jobs(data)
    assert parse_jobs(serialise_jobs(jobs))[0] == jobs
    variables.resolve([job.variables for job in jobs])


def literal(data: bytes) -> None:
    """What is taken for overrides can be stored."""
    made = from_mapping(dictionary(data.decode("utf-8", "surrogatepass"), "override_dict"))
    assert from_json(made.to_json().encode().decode()) == made


def words(data: bytes) -> None:
    """Small words: variables of the command line, times, amounts."""
    text = data.decode(errors="replace")
    for parse in (parse_clock, parse_memory, lambda text: assignments(text.splitlines())):
        try:
            parse(text)
        except DmpWorkflowError:
            continue


TARGETS: dict[str, tuple[Callable[[bytes], None], str]] = {
    "xml": (xml, '<Jobs><Job name="a" priority="1"><MetaData><Var name="A" value="$B"/></MetaData><InputFiles><File '
            'source="a" target="b"/></InputFiles><JobWrapper executable="b"><![CDATA[x]]></JobWrapper></Job></Jobs>'),
    "literal": (literal, "{'MetaData': [{'name': u'A', 'value': 5, \"var_type\": 'x'}], 'OutputFiles': None}"),
    "words": (words, "A='x;y';B=\\;\n12:30:00\n4.5GB"),
}  # fmt: skip


def main() -> int:
    """Fuzz one target after the other, each in its own process; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31), help="to repeat a run")  # noqa: S311
    parser.add_argument("--only", choices=sorted(TARGETS), help="one target, in this process")
    given = parser.parse_args()
    if given.only:
        return fuzz(given.only, given.seconds, given.seed)
    print(f"seed {given.seed}", flush=True)
    options = ["--seconds", str(given.seconds), "--seed", str(given.seed)]
    with tempfile.TemporaryDirectory() as folder:
        here = os.environ | {"TMPDIR": folder}  # the process of a target ends without tidying up
        commands = [[sys.executable, __file__, "--only", name, *options] for name in TARGETS]
        return sum(bool(subprocess.call(command, env=here)) for command in commands)


def fuzz(name: str, seconds: int, seed: int) -> int:
    """Fuzz a target, which ends this process; an input that fails is left in the file fuzz-failed-..."""
    target, example = TARGETS[name]

    def one_input(data: bytes) -> None:
        try:
            target(data)
        except (DmpWorkflowError, UnicodeDecodeError):
            return

    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    (corpus / "example").write_text(example)
    limits = {
        "max_total_time": seconds, "seed": seed, "max_len": LONGEST, "len_control": 0, "rss_limit_mb": MOST_MB,
        "timeout": MOST_SECONDS, "artifact_prefix": f"fuzz-failed-{name}-", "verbosity": 0, "print_final_stats": 1,
    }  # fmt: skip
    atheris.Setup([name, *(f"-{option}={value}" for option, value in limits.items()), str(corpus)], one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
